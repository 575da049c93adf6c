// Calls of the native kernels from several threads at once.
#include "restore_native.h"

#include <cstdio>
#include <thread>
#include <vector>

// How many results of several threads are not that of one.
static int differing(int64_t isa) {
    const int64_t tokens = 200, channels = 40;
    std::vector<float> x(tokens * channels), weight(channels * channels), packed(weight.size());
    std::vector<float> bias(channels, 0.5f);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 97) / 97;
    for (size_t i = 0; i < weight.size(); ++i) weight[i] = static_cast<float>(i % 89) / 89;
    restore_pack(isa, weight.data(), channels, channels, packed.data());

    const auto compute = [&](int64_t threads) {
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
    };

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
    std::printf("instruction set %d: %d results differ\n", static_cast<int>(isa), all);
    return all;
}

int main() {
    const int64_t bfloat16 = 3;
    return (differing(restore_best_isa()) +
            (restore_has_isa(bfloat16) ? differing(bfloat16) : 0)) != 0;
}
