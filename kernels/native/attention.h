// Attention of one window and head, the queries of a panel at a time.
#pragma once

#include "tokens.h"

namespace ISA {

struct Head {  // one head of one window; features by tokens
    const Unit *query, *key;
    const Value *value;
    int64_t query_stride, key_stride, value_stride;  // between units of features, or features
    int64_t keys, channels;
    const float *bias;                         // see RestoreWindows
    const int32_t *key_at;
    const int32_t *query_labels, *key_labels;  // or NULL where no pair is masked
};

constexpr float MASKED = -100.0f * LOG2_E;  // what the published networks add, as logits to base 2

// logits[b] = key_b . queries + bias, for a tile of keys b from `first` on; the largest so far
template <int ROWS>
struct LogitTile {
    static void run(const Head &head, int64_t first, int64_t query, float *logits,
                    Vector *largest) {
        Vector sums[ROWS][ACROSS];
        UNROLL for (int i = 0; i < ROWS; ++i) {
            const float *bias = head.bias + head.key_at[first + i] + query;
            sums[i][0] = load(bias);
            sums[i][1] = load(bias + LANES);
        }
        accumulate(sums, head.key + first, Adjacent{head.key_stride}, head.query + query,
                   head.query_stride, head.channels);
        if (head.query_labels) mask(head, first, query, sums);
        note_largest(sums, largest);
        store_tile(sums, {logits + first * PANEL, PANEL});
    }

    static INLINE void mask(const Head &head, int64_t first, int64_t query,
                            Vector (&sums)[ROWS][ACROSS]) {
        const Integers bits = reinterpret_cast<Integers>(splat(MASKED));
        const Integers own0 = load(head.query_labels + query);
        const Integers own1 = load(head.query_labels + query + LANES);
        UNROLL for (int i = 0; i < ROWS; ++i) {
            const int32_t other = head.key_labels[first + i];
            sums[i][0] += reinterpret_cast<Vector>((own0 != other) & bits);
            sums[i][1] += reinterpret_cast<Vector>((own1 != other) & bits);
        }
    }
};
typedef void LogitFunction(const Head &, int64_t, int64_t, float *, Vector *);
static constexpr ByRows<LogitTile, LogitFunction> LOGIT_TILES;

// out[f] = factor * sum_b value[f][b] weights[b], for a tile of features f from `first` on
template <typename Store>
struct Values {
    typedef typename Store::Out Out;
    typedef void Function(const Head &, int64_t, const float *, const Vector *, Out);

    template <int ROWS>
    struct Tile {
        static void run(const Head &head, int64_t first, const float *weights,
                        const Vector *factor, Out out) {
            const Out tile = Store::part(out, first);
            Vector sums[ROWS][ACROSS] = {};
            accumulate_in_parts(sums, head.value + first * head.value_stride,
                                AcrossRows{head.value_stride},
                                reinterpret_cast<const Unit *>(weights), PANEL, head.keys, tile);
            UNROLL for (int i = 0; i < ROWS; ++i) {
                sums[i][0] *= factor[0];
                sums[i][1] *= factor[1];
            }
            Store::store_sums(sums, tile);
        }
    };
    static constexpr ByRows<Tile, Function> TILES{};
};

// Turn logits of LANES queries into weights, units of adjacent keys in the same memory, and return
// what these have to be multiplied by.
static Vector exponentials(float *logits, Vector largest, int64_t keys) {
    Unit *weights = reinterpret_cast<Unit *>(logits);
    Vector sums[4] = {};  // rounding errors grow with the length of a sum
    int64_t b = 0;
    for (; b + 4 <= keys; b += 4) {
        Vector e[4];
        UNROLL for (int i = 0; i < 4; ++i) {
            e[i] = exp2_below_zero(load(logits + (b + i) * PANEL) - largest);
            sums[i] += e[i];
        }
        UNROLL for (int i = 0; i < 4; i += TERMS) {
            store(weights, joined(e + i));
            weights += PANEL;
        }
    }
    for (; b < keys; b += TERMS) {
        Vector e[TERMS] = {};
        UNROLL for (int i = 0; i < TERMS; ++i) {
            if (b + i == keys) break;
            e[i] = exp2_below_zero(load(logits + (b + i) * PANEL) - largest);
            sums[0] += e[i];
        }
        store(weights, joined(e));
        weights += PANEL;
    }
    return 1.0f / ((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// Attend from the PANEL queries from `query` on; `logits` holds head.keys * PANEL floats.
template <typename Store>
static void attend(const Head &head, int64_t query, float *logits, typename Store::Out out) {
    constexpr float LOWEST = -std::numeric_limits<float>::infinity();
    Vector largest[ACROSS] = {splat(LOWEST), splat(LOWEST)};
    const int64_t key_tiles = count_tiles(head.keys);
    for (int64_t t = 0; t < key_tiles; ++t) {
        const int64_t first = tile_start(head.keys, key_tiles, t);
        const int64_t rows = tile_start(head.keys, key_tiles, t + 1) - first;
        LOGIT_TILES.of[rows](head, first, query, logits, largest);
    }
    const Vector factor[ACROSS] = {exponentials(logits, largest[0], head.keys),
                                   exponentials(logits + LANES, largest[1], head.keys)};
    const int64_t tiles = count_tiles(head.channels);
    for (int64_t t = 0; t < tiles; ++t) {
        const int64_t first = tile_start(head.channels, tiles, t);
        const int64_t rows = tile_start(head.channels, tiles, t + 1) - first;
        Values<Store>::TILES.of[rows](head, first, logits, factor, out);
    }
}

}  // namespace ISA
