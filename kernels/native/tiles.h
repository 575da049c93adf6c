// Products of matrices, a tile of the result at a time in registers.
//
// Activations lie feature by feature, the tokens of a panel side by side: vectors hold tokens and
// every product takes a scalar of the other matrix. So no number of channels needs padding, and
// norms and softmax are sums of whole vectors.
#pragma once

#include "restore_native.h"
#include "vectors.h"

namespace ISA {

// Rows of a tile: with ACROSS vectors each, the sums and what is multiplied just fit the registers.
#if LANES == 16 || defined(__aarch64__)
constexpr int MOST_ROWS = 12;
#else
constexpr int MOST_ROWS = 6;
#endif

// Rows are cut into tiles of nearly the same height, since low tiles leave the FMA units waiting.
INLINE int64_t count_tiles(int64_t rows) { return (rows + MOST_ROWS - 1) / MOST_ROWS; }
INLINE int64_t tile_start(int64_t rows, int64_t tiles, int64_t tile) {
    return rows * tile / tiles;
}

struct Panel {  // of activations: feature f of its tokens lies at data + f * stride
    float *data;
    int64_t stride;
};

struct AcrossRows {  // the scalars of one step lie `stride` apart, those of the next beside them
    int64_t stride;
    int64_t step() const { return 1; }
};

struct Adjacent {  // the scalars of one step lie side by side, `stride` from those of the next
    int64_t stride;
    int64_t step() const { return stride; }
};

// sums[i] += scalars[i][k] * vectors[k] over k < depth
template <int ROWS>
INLINE void accumulate(Vector (&sums)[ROWS][ACROSS], const float *scalars, Adjacent layout,
                       const float *vectors, int64_t vector_stride, int64_t depth) {
    for (int64_t k = 0; k < depth; ++k) {
        const Vector v0 = load(vectors), v1 = load(vectors + LANES);
        UNROLL for (int i = 0; i < ROWS; ++i) {
            const Vector s = splat(scalars[i]);
            sums[i][0] += s * v0;
            sums[i][1] += s * v1;
        }
        scalars += layout.stride;
        vectors += vector_stride;
    }
}

template <int ROWS>
INLINE void accumulate(Vector (&sums)[ROWS][ACROSS], const float *scalars, AcrossRows layout,
                       const float *vectors, int64_t vector_stride, int64_t depth) {
    const float *rows[ROWS];
    UNROLL for (int i = 0; i < ROWS; ++i) rows[i] = scalars + i * layout.stride;
    for (int64_t k = 0; k < depth; ++k) {
        const Vector v0 = load(vectors), v1 = load(vectors + LANES);
        UNROLL for (int i = 0; i < ROWS; ++i) {
            const Vector s = splat(rows[i][k]);
            sums[i][0] += s * v0;
            sums[i][1] += s * v1;
        }
        vectors += vector_stride;
    }
}

template <int ROWS>
INLINE void store_tile(const Vector (&sums)[ROWS][ACROSS], Panel out) {
    UNROLL for (int i = 0; i < ROWS; ++i) {
        store(out.data, sums[i][0]);
        store(out.data + LANES, sums[i][1]);
        out.data += out.stride;
    }
}

template <int ROWS>
INLINE void add_tile(Vector (&sums)[ROWS][ACROSS], Panel x) {
    UNROLL for (int i = 0; i < ROWS; ++i) {
        sums[i][0] += load(x.data);
        sums[i][1] += load(x.data + LANES);
        x.data += x.stride;
    }
}

// One function for each height of a tile, by height.
template <template <int> class Tile, typename Function>
struct ByRows {
    Function *of[13];
    constexpr ByRows()
        : of{nullptr, Tile<1>::run, Tile<2>::run, Tile<3>::run, Tile<4>::run, Tile<5>::run,
             Tile<6>::run,
#if LANES == 16 || defined(__aarch64__)
             Tile<7>::run, Tile<8>::run, Tile<9>::run, Tile<10>::run, Tile<11>::run, Tile<12>::run
#endif
          } {}
};

// A sum of many terms is made of sums of at most so many: rounding errors grow with the length.
constexpr int64_t MOST_TERMS = 64;

// sums += products over `depth`, added up in parts; `out` keeps the sum of those that are done
template <int ROWS, typename Layout>
INLINE void accumulate_in_parts(Vector (&sums)[ROWS][ACROSS], const float *scalars, Layout layout,
                                const float *vectors, int64_t vector_stride, int64_t depth,
                                Panel out) {
    if (depth <= MOST_TERMS) {
        accumulate(sums, scalars, layout, vectors, vector_stride, depth);
        return;
    }
    for (bool begun = false; depth > MOST_TERMS; begun = true, depth -= MOST_TERMS) {
        accumulate(sums, scalars, layout, vectors, vector_stride, MOST_TERMS);
        if (begun) add_tile(sums, out);
        store_tile(sums, out);
        UNROLL for (int i = 0; i < ROWS; ++i) sums[i][0] = sums[i][1] = Vector{};
        scalars += MOST_TERMS * layout.step();
        vectors += MOST_TERMS * vector_stride;
    }
    accumulate(sums, scalars, layout, vectors, vector_stride, depth);
    add_tile(sums, out);
}

// out = W x + bias, for a tile of packed rows of W
typedef void LinearFunction(const float *packed, const float *bias, int64_t bias_stride,
                            int64_t depth, Panel x, Panel out);

template <int ROWS>
struct LinearTile {
    static void run(const float *packed, const float *bias, int64_t bias_stride, int64_t depth,
                    Panel x, Panel out) {
        Vector sums[ROWS][ACROSS];
        UNROLL for (int i = 0; i < ROWS; ++i) {
            if (bias_stride) {  // one for each token
                sums[i][0] = load(bias + i * bias_stride);
                sums[i][1] = load(bias + i * bias_stride + LANES);
            } else {
                sums[i][0] = sums[i][1] = splat(bias[i]);
            }
        }
        accumulate_in_parts(sums, packed, Adjacent{ROWS}, x.data, x.stride, depth, out);
        store_tile(sums, out);
    }
};
static constexpr ByRows<LinearTile, LinearFunction> LINEAR_TILES;

static void apply_gelu(Panel x, int64_t rows) {
    for (int64_t i = 0; i < rows; ++i) {
        float *row = x.data + i * x.stride;
        store(row, gelu(load(row)));
        store(row + LANES, gelu(load(row + LANES)));
    }
}

// A layer for the tokens of a panel; `token` is the place of the first one in its window.
static void apply_linear(const RestoreLinear &layer, int64_t token, int64_t padded_tokens,
                         bool gelu_behind, Panel x, Panel out) {
    const int64_t tiles = count_tiles(layer.outputs);
    for (int64_t t = 0; t < tiles; ++t) {
        const int64_t start = tile_start(layer.outputs, tiles, t);
        const int64_t rows = tile_start(layer.outputs, tiles, t + 1) - start;
        const float *bias = layer.per_token ? layer.bias + start * padded_tokens + token
                                            : layer.bias + start;
        const Panel part{out.data + start * out.stride, out.stride};
        LINEAR_TILES.of[rows](layer.packed + start * layer.inputs, bias,
                              layer.per_token ? padded_tokens : 0, layer.inputs, x, part);
        if (gelu_behind) apply_gelu(part, rows);
    }
}

static void pack(const float *weight, int64_t outputs, int64_t inputs, float *packed) {
    const int64_t tiles = count_tiles(outputs);
    for (int64_t t = 0; t < tiles; ++t) {
        const int64_t start = tile_start(outputs, tiles, t);
        const int64_t stop = tile_start(outputs, tiles, t + 1);
        for (int64_t k = 0; k < inputs; ++k)
            for (int64_t i = start; i < stop; ++i) *packed++ = weight[i * inputs + k];
    }
}

}  // namespace ISA
