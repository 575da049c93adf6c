// Calls of the native kernels from several threads at once.
#include "restore_native.h"

#include <cstdio>
#include <thread>
#include <vector>

// How many results of several threads are not that of one.
template <typename Compute>
static int differing(int64_t isa, const char *op, const Compute &compute) {
    const std::vector<float> wanted = compute(1);
    std::vector<std::thread> callers;
    std::vector<int> wrong(4);
    for (int caller = 0; caller < 4; ++caller)
        callers.emplace_back([&, caller] {
            for (int round = 0; round < 50; ++round) wrong[caller] += compute(3) != wanted;
        });
    for (std::thread &caller : callers) caller.join();
    int all = 0;
    for (const int count : wrong) all += count;
    std::printf("%s, instruction set %d: %d results differ\n", op, static_cast<int>(isa), all);
    return all;
}

static int differing_tokens(int64_t isa) {
    const int64_t tokens = 200, channels = 40;
    std::vector<float> x(tokens * channels), weight(channels * channels), packed(weight.size());
    std::vector<float> bias(channels, 0.5f);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 97) / 97;
    for (size_t i = 0; i < weight.size(); ++i) weight[i] = static_cast<float>(i % 89) / 89;
    restore_pack(isa, weight.data(), channels, channels, packed.data());

    return differing(isa, "tokens", [&](int64_t threads) {
        std::vector<float> out(x.size());
        RestoreTokens call{};
        call.x = x.data();
        call.out = out.data();
        call.count = tokens;
        call.channels = call.x_stride = call.out_stride = channels;
        call.first = {packed.data(), bias.data(), channels, channels, 0};
        call.gelu = 1;
        if (restore_tokens(isa, &call, threads)) std::puts("no memory");
        return out;
    });
}

static int differing_gradients(int64_t isa) {
    const int64_t side = 4, tokens = side * side, height = 2 * side, width = 4 * side;
    const int64_t heads = 2, channels = 20, pixels = height * width, parts = 5;
    const int64_t stride = tokens * tokens + 64;  // with room behind the queries for any panel
    std::vector<int32_t> y(tokens), x(tokens), key_at(tokens);
    for (int32_t t = 0; t < tokens; ++t) {
        y[t] = t / side;
        x[t] = t % side;
        key_at[t] = t * tokens;
    }
    std::vector<float> maps(4 * pixels * channels), bias(heads * stride);
    for (size_t i = 0; i < maps.size(); ++i) maps[i] = static_cast<float>(i % 97) / 97;
    for (size_t i = 0; i < bias.size(); ++i) bias[i] = static_cast<float>(i % 89) / 89;
    const auto map = [&](std::vector<float> &of, int64_t index) {
        const int64_t row = width * channels;
        return RestoreMap{of.data() + index * pixels * channels, pixels * channels, row, channels, 0};
    };

    return differing(isa, "gradients", [&](int64_t threads) {
        std::vector<float> out(3 * pixels * channels + parts * heads * stride);
        RestoreAttentionGradients call{};
        RestoreAttention &c = call.attention;
        c.query = map(maps, 0);
        c.key = map(maps, 1);
        c.value = map(maps, 2);
        c.out = map(maps, 3);
        c.images = 1;
        c.height = height;
        c.width = width;
        c.channels = channels;
        c.heads = heads;
        c.windows.query = {tokens, y.data(), x.data(), side, side, 0, 0, 0, nullptr, 0};
        c.windows.key = c.windows.query;
        c.windows.bias = bias.data();
        c.windows.bias_stride = stride;
        c.windows.key_at = key_at.data();
        c.count = pixels / tokens;
        c.scale = 0.5f;
        call.query = map(out, 0);
        call.key = map(out, 1);
        call.value = map(out, 2);
        call.bias = out.data() + 3 * pixels * channels;
        call.parts = parts;
        if (restore_attention_gradients(isa, &call, threads)) std::puts("no memory");
        return out;
    });
}

int main() {
    const int64_t bfloat16 = 3, best = restore_best_isa();
    return (differing_tokens(best) + differing_gradients(best) +
            (restore_has_isa(bfloat16) ? differing_tokens(bfloat16) : 0)) != 0;
}
