// Products of activations with activations: both lie as they are, nothing is packed.
#pragma once

#include "attention.h"

namespace ISA {

struct Scalars {  // the one of step k for row i is data[k * stride + i]
    const float *data;
    int64_t stride;
};

// out[i] = sum over k < depth of scalars[k][i] * vectors[k]; what becomes of it is up to `End`
template <typename End>
struct Product {
    typedef void Function(Scalars, Panel, int64_t, Panel, Vector *);

    template <int ROWS>
    struct Tile {
        static void run(Scalars scalars, Panel vectors, int64_t depth, Panel out,
                        Vector *largest) {
            Vector sums[ROWS][ACROSS] = {};
            End::template accumulate_tile<ROWS>(sums, scalars, vectors, depth, out);
            End::template note<ROWS>(sums, largest);
            store_tile(sums, out);
        }
    };
    static constexpr ByRows<Tile, Function> TILES{};

    static void run(Scalars scalars, int64_t rows, Panel vectors, int64_t depth, Panel out,
                    Vector *largest = nullptr) {
        const int64_t tiles = count_tiles(rows);
        for (int64_t t = 0; t < tiles; ++t) {
            const int64_t first = tile_start(rows, tiles, t);
            const int64_t height = tile_start(rows, tiles, t + 1) - first;
            TILES.of[height]({scalars.data + first, scalars.stride}, vectors, depth,
                             {out.data + first * out.stride, out.stride}, largest);
        }
    }
};

struct Alone {
    template <int ROWS>
    static INLINE void accumulate_tile(Vector (&sums)[ROWS][ACROSS], Scalars scalars,
                                       Panel vectors, int64_t depth, Panel out) {
        accumulate_in_parts(sums, scalars.data, Adjacent{scalars.stride}, vectors.data,
                            vectors.stride, depth, out);
    }
    template <int ROWS>
    static INLINE void note(Vector (&)[ROWS][ACROSS], Vector *) {}
};

struct WithLargest : Alone {  // of each token
    template <int ROWS>
    static INLINE void note(Vector (&sums)[ROWS][ACROSS], Vector *largest) {
        note_largest(sums, largest);
    }
};

struct Added : Alone {  // to what is there; for at most MOST_TERMS
    template <int ROWS>
    static INLINE void accumulate_tile(Vector (&sums)[ROWS][ACROSS], Scalars scalars,
                                       Panel vectors, int64_t depth, Panel out) {
        accumulate(sums, scalars.data, Adjacent{scalars.stride}, vectors.data, vectors.stride,
                   depth);
        add_tile(sums, out);
    }
};

#if !defined(BFLOAT16)

// Weights of `rows` keys for the queries of a panel: 2^(key . query - the largest), at most 1.
// `factor` becomes what they have to be multiplied by to add up to 1.
static void weigh(Scalars keys, int64_t rows, Panel queries, int64_t depth, Panel weights,
                  Vector *factor) {
    constexpr float LOWEST = -std::numeric_limits<float>::infinity();
    Vector largest[ACROSS] = {splat(LOWEST), splat(LOWEST)};
    Product<WithLargest>::run(keys, rows, queries, depth, weights, largest);
    for (int64_t half = 0; half < ACROSS; ++half)
        factor[half] = exponentials(weights.data + half * LANES, largest[half], rows);
}

static void scale_rows(Panel x, int64_t rows, const Vector *factor) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t half = 0; half < ACROSS; ++half) {
            float *const at = x.data + i * x.stride + half * LANES;
            store(at, load(at) * factor[half]);
        }
}

#endif

}  // namespace ISA
