// Attention from tokens to a dictionary, and the refinement of the dictionary by the tokens.
#pragma once

#include <cstdlib>

#include "parallel.h"
#include "products.h"

namespace ISA {

struct DictionaryWork {
    const RestoreDictionary *call;
    int64_t panels;  // of an image

    explicit DictionaryWork(const RestoreDictionary *c)
        : call(c), panels((c->tokens + PANEL - 1) / PANEL) {}

    int64_t scratch() const { return PANEL * (call->compared + call->entries + call->channels); }

    static void run(const void *self, int64_t item, float *scratch) {
        static_cast<const DictionaryWork *>(self)->run(item, scratch);
    }

    // An item is a panel of tokens of one image.
    void run(int64_t item, float *scratch) const {
        const RestoreDictionary &c = *call;
        const int64_t image = item / panels, token = item % panels * PANEL;
        const Panel query{scratch, PANEL};
        const Panel weights{query.data + c.compared * PANEL, PANEL};
        const Panel mixed{weights.data + c.entries * PANEL, PANEL};
        for (int64_t half = 0; half < PANEL; half += LANES) {
            const float *rows[LANES];
            for (int64_t t = 0; t < LANES; ++t) {
                const int64_t at = token + half + t;
                rows[t] = c.query + (image * c.tokens + (at < c.tokens ? at : c.tokens - 1)) *
                                        c.compared;
            }
            gather(rows, c.compared, 1.0f, {query.data + half, PANEL});
        }
        make_unit(query, c.compared);
        Vector factor[ACROSS];
        weigh({c.key + image * c.compared * c.entries, c.entries}, c.entries, query, c.compared,
              weights, factor);
        scale_rows(weights, c.entries, factor);
        Product<Alone>::run({c.value + image * c.entries * c.channels, c.channels}, c.channels,
                            weights, c.entries, mixed);
        give(weights, c.entries, c.similarity, image, token);
        give(mixed, c.channels, c.out, image, token);
    }

    // To length 1, except for tokens of zeros.
    static void make_unit(Panel x, int64_t channels) {
        for (int64_t half = 0; half < ACROSS; ++half) {
            float *const data = x.data + half * LANES;
            Vector squares = {};
            for (int64_t c = 0; c < channels; ++c) {
                const Vector v = load(data + c * x.stride);
                squares += v * v;
            }
            Vector length;
            for (int i = 0; i < LANES; ++i) length[i] = __builtin_sqrtf(squares[i]);
            // in this order, as a comparison with NaN takes the second
            const Vector divisor = greater(splat(1e-12f), length);
            for (int64_t c = 0; c < channels; ++c) {
                float *const row = data + c * x.stride;
                store(row, load(row) / divisor);
            }
        }
    }

    void give(Panel x, int64_t channels, float *to, int64_t image, int64_t token) const {
        const RestoreDictionary &c = *call;
        for (int64_t half = 0; half < PANEL && token + half < c.tokens; half += LANES) {
            const int64_t rest = c.tokens - token - half, count = rest < LANES ? rest : LANES;
            float *rows[LANES];
            for (int64_t t = 0; t < LANES; ++t)
                rows[t] = to + (image * c.tokens + token + half + (t < count ? t : 0)) * channels;
            scatter({x.data + half, x.stride}, channels, nullptr, rows, count);
        }
    }
};

static int64_t dictionary(const RestoreDictionary *call, int64_t threads) {
    const DictionaryWork work(call);
    return !restore_native::run_in_parallel(threads, call->images * work.panels, work.scratch(),
                                            DictionaryWork::run, &work);
}

// Sums over tokens are made of those over chunks of them, and these of blocks, so that the number
// of threads changes nothing and rounding errors do not add up.
struct RefinementWork {
    static constexpr int64_t BLOCK = MOST_TERMS, LEAST_CHUNK = 4 * BLOCK, MOST_CHUNKS = 64;
    // rows of what is known of the entries over a chunk, and of what follows over an image
    enum { MEAN, SQUARES, LEAST, LARGEST, STATISTICS };
    enum { FACTOR, TOP, KEPT, SETTINGS };

    const RestoreRefinement *call;
    int64_t width;   // entries of a row: whole panels
    int64_t chunk, chunks;
    float *statistics = nullptr;  // [images, chunks, STATISTICS, width]
    float *settings = nullptr;    // [images, SETTINGS, width]
    float *sums = nullptr;        // [images, chunks, channels + 1, width]; last those of weights

    explicit RefinementWork(const RestoreRefinement *c) : call(c), width(padded(c->entries)) {
        const int64_t least = (c->tokens + MOST_CHUNKS - 1) / MOST_CHUNKS;
        chunk = least < LEAST_CHUNK ? LEAST_CHUNK : (least + BLOCK - 1) / BLOCK * BLOCK;
        chunks = (c->tokens + chunk - 1) / chunk;
    }

    int64_t rows() const { return call->channels + 1; }
    int64_t statistics_size() const { return call->images * chunks * STATISTICS * width; }
    int64_t settings_size() const { return call->images * SETTINGS * width; }
    int64_t sums_size() const { return call->images * chunks * rows() * width; }

    // Similarities of the tokens from `token` on: [count, width], 0 where there is no entry.
    void read(int64_t image, int64_t token, int64_t count, float *to) const {
        const RestoreRefinement &c = *call;
        for (int64_t t = 0; t < count; ++t) {
            const float *const from =
                c.similarity + (image * c.tokens + token + t) * c.entries;
            std::memcpy(to + t * width, from, static_cast<size_t>(c.entries) * sizeof(float));
            for (int64_t m = c.entries; m < width; ++m) to[t * width + m] = 0.0f;
        }
    }

    // Call `use(token, count)` for each block of a chunk.
    template <typename Use>
    void each_block(int64_t item, const Use &use) const {
        const int64_t first = item % chunks * chunk;
        const int64_t stop = first + chunk < call->tokens ? first + chunk : call->tokens;
        for (int64_t t = first; t < stop; t += BLOCK)
            use(t, stop - t < BLOCK ? stop - t : BLOCK);
    }

    static void measure(const void *self, int64_t item, float *scratch) {
        static_cast<const RefinementWork *>(self)->measure(item, scratch);
    }

    void measure(int64_t item, float *block) const {
        float *const found = statistics + item * STATISTICS * width;
        int64_t done = 0;
        each_block(item, [&](int64_t token, int64_t count) {
            read(item / chunks, token, count, block);
            for (int64_t m = 0; m < width; m += LANES) add_block(block + m, done, count, found + m);
            done += count;
        });
    }

    // Chan et al., "Updating formulae and a pairwise algorithm for computing sample variances".
    void add_block(const float *column, int64_t done, int64_t count, float *found) const {
        const float all = static_cast<float>(done + count), these = static_cast<float>(count);
        Vector sum = {}, squares = {}, least = load(column), largest = least;
        for (int64_t t = 0; t < count; ++t) {
            const Vector v = load(column + t * width);
            sum += v;
            least = lesser(least, v);
            largest = greater(largest, v);
        }
        const Vector mean = sum / these;
        for (int64_t t = 0; t < count; ++t) {
            const Vector d = load(column + t * width) - mean;
            squares += d * d;
        }
        if (done == 0) {
            store(found + MEAN * width, mean);
            store(found + SQUARES * width, squares);
            store(found + LEAST * width, least);
            store(found + LARGEST * width, largest);
            return;
        }
        const Vector before = load(found + MEAN * width), apart = mean - before;
        store(found + MEAN * width, before + apart * (these / all));
        store(found + SQUARES * width, load(found + SQUARES * width) + squares +
                                           apart * apart * (static_cast<float>(done) * these / all));
        store(found + LEAST * width, lesser(load(found + LEAST * width), least));
        store(found + LARGEST * width, greater(load(found + LARGEST * width), largest));
    }

    // What of similarity A a weight 2^(factor (A - top)) is, with `top` so that none exceeds 1.
    void settle(int64_t image) const {
        const RestoreRefinement &c = *call;
        float *const its = settings + image * SETTINGS * width;
        for (int64_t m = 0; m < SETTINGS * width; ++m) its[m] = 0.0f;
        for (int64_t m = 0; m < c.entries; ++m) {
            double mean = 0.0, squares = 0.0, done = 0.0;
            float least = 0.0f, largest = 0.0f;
            for (int64_t i = 0; i < chunks; ++i) {
                const float *const found =
                    statistics + (image * chunks + i) * STATISTICS * width + m;
                const int64_t rest = c.tokens - i * chunk;
                const double count = static_cast<double>(rest < chunk ? rest : chunk);
                const double apart = found[MEAN * width] - mean;
                mean += apart * count / (done + count);
                squares += found[SQUARES * width] + apart * apart * done * count / (done + count);
                done += count;
                const float low = found[LEAST * width], high = found[LARGEST * width];
                least = i == 0 || low < least ? low : least;
                largest = i == 0 || high > largest ? high : largest;
            }
            const double factor = c.weight[m] / __builtin_sqrt(squares / done + c.eps);
            its[FACTOR * width + m] = static_cast<float>(factor * LOG2_E);
            its[TOP * width + m] = factor < 0.0 ? least : largest;
            // the bias of the norm moves all logits alike and so changes nothing, unless it is none
            its[KEPT * width + m] =
                static_cast<float>(1.0 / (1.0 + __builtin_exp(-static_cast<double>(c.sigma[m])))) +
                (c.bias[m] - c.bias[m]);
        }
    }

    static void add_up(const void *self, int64_t item, float *scratch) {
        static_cast<const RefinementWork *>(self)->add_up(item, scratch);
    }

    void add_up(int64_t item, float *weights) const {
        const RestoreRefinement &c = *call;
        const int64_t image = item / chunks;
        float *const found = sums + item * rows() * width;
        for (int64_t i = 0; i < rows() * width; ++i) found[i] = 0.0f;
        each_block(item, [&](int64_t token, int64_t count) {
            read(image, token, count, weights);
            const float *const its = settings + image * SETTINGS * width;
            for (int64_t m = 0; m < width; m += LANES) {
                const Vector factor = load(its + FACTOR * width + m);
                const Vector top = load(its + TOP * width + m);
                Vector sum = {};
                for (int64_t t = 0; t < count; ++t) {
                    float *const at = weights + t * width + m;
                    const Vector e = exp2_below_zero((load(at) - top) * factor);
                    store(at, e);
                    sum += e;
                }
                float *const total = found + c.channels * width + m;
                store(total, load(total) + sum);
            }
            const Scalars x{c.x + (image * c.tokens + token) * c.channels, c.channels};
            for (int64_t m = 0; m < width; m += PANEL)
                Product<Added>::run(x, c.channels, {weights + m, width}, count, {found + m, width});
        });
    }

    static void finish(const void *self, int64_t item, float *scratch) {
        static_cast<const RefinementWork *>(self)->finish(item, scratch);
    }

    // An item is LANES entries of an image.
    void finish(int64_t item, float *scratch) const {
        const RestoreRefinement &c = *call;
        const int64_t vectors = (c.entries + LANES - 1) / LANES;
        const int64_t image = item / vectors, first = item % vectors * LANES;
        const int64_t rest = c.entries - first, count = rest < LANES ? rest : LANES;
        const float *old[LANES];
        float *fresh[LANES];
        for (int64_t i = 0; i < LANES; ++i) {
            const int64_t m = first + (i < count ? i : 0);
            old[i] = c.dictionary + (image * c.entries + m) * c.channels;
            fresh[i] = c.out + (image * c.entries + m) * c.channels;
        }
        gather(old, c.channels, 1.0f, {scratch, LANES});
        const float *const found = sums + image * chunks * rows() * width + first;
        const Vector kept = load(settings + (image * SETTINGS + KEPT) * width + first);
        const Vector factor = (1.0f - kept) / over_chunks(found + c.channels * width);
        for (int64_t i = 0; i < c.channels; ++i) {
            float *const at = scratch + i * LANES;
            store(at, kept * load(at) + factor * over_chunks(found + i * width));
        }
        scatter({scratch, LANES}, c.channels, nullptr, fresh, count);
    }

    Vector over_chunks(const float *from) const {
        Vector sum = {};
        for (int64_t i = 0; i < chunks; ++i) sum += load(from + i * rows() * width);
        return sum;
    }
};

static int64_t refinement(const RestoreRefinement *call, int64_t threads) {
    using restore_native::run_in_parallel;
    RefinementWork work(call);
    const int64_t items = call->images * work.chunks, block = RefinementWork::BLOCK * work.width;
    const int64_t all = work.statistics_size() + work.settings_size() + work.sums_size();
    float *const memory = static_cast<float *>(std::malloc(static_cast<size_t>(all) * sizeof(float)));
    if (!memory) return 1;
    work.statistics = memory;
    work.settings = work.statistics + work.statistics_size();
    work.sums = work.settings + work.settings_size();
    bool done = run_in_parallel(threads, items, block, RefinementWork::measure, &work);
    for (int64_t image = 0; done && image < call->images; ++image) work.settle(image);
    done = done && run_in_parallel(threads, items, block, RefinementWork::add_up, &work);
    const int64_t ends = call->images * ((call->entries + LANES - 1) / LANES);
    done = done && run_in_parallel(threads, ends, call->channels * LANES, RefinementWork::finish,
                                   &work);
    std::free(memory);
    return !done;
}

}  // namespace ISA
