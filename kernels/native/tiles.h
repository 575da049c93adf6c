// Products of matrices, a tile of the result at a time in registers.
//
// Activations lie feature by feature, the tokens of a panel side by side: vectors hold tokens and
// every product takes a scalar of the other matrix. So no number of channels needs padding, and
// norms and softmax are sums of whole vectors.
#pragma once

#include "arithmetic.h"
#include "restore_native.h"

namespace ISA {

// Rows of a tile: with ACROSS vectors each, the sums and what is multiplied just fit the registers.
#if LANES == 16 || defined(__aarch64__)
constexpr int MOST_ROWS = 12;
#else
constexpr int MOST_ROWS = 6;
#endif

// Rows are cut into tiles of nearly the same height, since low tiles leave the FMA units waiting.
// No tile parts the rows of a unit.
INLINE int64_t count_tiles(int64_t rows) {
    return (units_of(rows) * TERMS + MOST_ROWS - 1) / MOST_ROWS;
}
INLINE int64_t tile_start(int64_t rows, int64_t tiles, int64_t tile) {
    const int64_t start = units_of(rows) * tile / tiles * TERMS;
    return start < rows ? start : rows;
}

struct AcrossRows {  // the scalars of one step lie `stride` apart, those of the next beside them
    int64_t stride;
    int64_t step() const { return 1; }
};

struct Adjacent {  // the scalars of one step lie side by side, `stride` from those of the next
    int64_t stride;
    int64_t step() const { return stride; }
};

struct InUnits {
    typedef Unit Number;
    static INLINE int64_t steps(int64_t depth) { return units_of(depth); }
};

struct InFloats {
    typedef float Number;
    static INLINE int64_t steps(int64_t depth) { return depth; }
};

template <typename Kind, int ROWS>
INLINE void accumulate_in(Vector (&sums)[ROWS][ACROSS], const typename Kind::Number *scalars,
                          Adjacent layout, const typename Kind::Number *vectors,
                          int64_t vector_stride, int64_t depth) {
    for (int64_t k = 0; k < Kind::steps(depth); ++k) {
        const auto v0 = load(vectors), v1 = load(vectors + LANES);
        UNROLL for (int i = 0; i < ROWS; ++i) {
            const auto s = splat(scalars[i]);
            sums[i][0] = add_product(sums[i][0], s, v0);
            sums[i][1] = add_product(sums[i][1], s, v1);
        }
        scalars += layout.stride;
        vectors += vector_stride;
    }
}

// sums[i] += scalars[i][k] * vectors[k] over k < depth, in terms of the products
template <int ROWS>
INLINE void accumulate(Vector (&sums)[ROWS][ACROSS], const Unit *scalars, Adjacent layout,
                       const Unit *vectors, int64_t vector_stride, int64_t depth) {
    accumulate_in<InUnits>(sums, scalars, layout, vectors, vector_stride, depth);
}

#if defined(BFLOAT16)
template <int ROWS>
INLINE void accumulate(Vector (&sums)[ROWS][ACROSS], const float *scalars, Adjacent layout,
                       const float *vectors, int64_t vector_stride, int64_t depth) {
    accumulate_in<InFloats>(sums, scalars, layout, vectors, vector_stride, depth);
}
#endif

template <int ROWS>
INLINE void accumulate(Vector (&sums)[ROWS][ACROSS], const Value *scalars, AcrossRows layout,
                       const Unit *vectors, int64_t vector_stride, int64_t depth) {
    const Value *rows[ROWS];
    UNROLL for (int i = 0; i < ROWS; ++i) rows[i] = scalars + i * layout.stride;
    for (int64_t k = 0; k < depth / TERMS; ++k) {
        const Units v0 = load(vectors), v1 = load(vectors + LANES);
        UNROLL for (int i = 0; i < ROWS; ++i) {
            const Units s = splat(unit_at(rows[i], k));
            sums[i][0] = add_product(sums[i][0], s, v0);
            sums[i][1] = add_product(sums[i][1], s, v1);
        }
        vectors += vector_stride;
    }
    if (depth % TERMS == 0) return;
    const Units v0 = load(vectors), v1 = load(vectors + LANES);
    UNROLL for (int i = 0; i < ROWS; ++i) {  // what lies behind the last one is another's
        const Units s = splat(last_unit(rows[i] + depth - 1));
        sums[i][0] = add_product(sums[i][0], s, v0);
        sums[i][1] = add_product(sums[i][1], s, v1);
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

// The largest numbers so far, of each column.
template <int ROWS>
INLINE void note_largest(const Vector (&sums)[ROWS][ACROSS], Vector *largest) {
    Vector a = largest[0], b = largest[1];
    UNROLL for (int i = 0; i < ROWS; ++i) {
        a = greater(a, sums[i][0]);
        b = greater(b, sums[i][1]);
    }
    largest[0] = a;
    largest[1] = b;
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
// Those of bfloat16 are in what is multiplied.
constexpr int64_t MOST_TERMS = 64;

// sums += products over `depth`, added up in parts; `out` keeps the sum of those that are done
template <int ROWS, typename Scalar, typename Layout, typename Out>
INLINE void accumulate_in_parts(Vector (&sums)[ROWS][ACROSS], const Scalar *scalars, Layout layout,
                                const Unit *vectors, int64_t vector_stride, int64_t depth,
                                Out out) {
    if (TERMS > 1 || depth <= MOST_TERMS) {
        accumulate(sums, scalars, layout, vectors, vector_stride, depth);
        return;
    }
    if constexpr (TERMS == 1) {
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
}

static void apply_gelu(Panel x, int64_t rows) {
    for (int64_t i = 0; i < rows; ++i) {
        float *row = x.data + i * x.stride;
        store(row, gelu(load(row)));
        store(row + LANES, gelu(load(row + LANES)));
    }
}

static void add_rows(Panel x, int64_t rows, Panel to) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t half = 0; half < PANEL; half += LANES) {
            float *const at = to.data + i * to.stride + half;
            store(at, load(at) + load(x.data + i * x.stride + half));
        }
}

// Ways to store a tile, whose first row is `row` of what is computed.
template <bool GELU>
struct AsPanel {
    typedef Panel Out;
    static Out part(Out out, int64_t row) { return {out.data + row * out.stride, out.stride}; }
    template <int ROWS>
    static INLINE void store_sums(const Vector (&sums)[ROWS][ACROSS], Out out) {
        store_tile(sums, out);
        if (GELU) apply_gelu(out, ROWS);
    }
};

#if defined(BFLOAT16)
template <bool GELU>
struct AsTerms {  // what the next product adds up along the rows; the last may have no partner
    typedef Terms Out;
    static Out part(Out out, int64_t row) {
        return {out.data + row / TERMS * out.stride, out.stride};
    }
    template <int ROWS>
    static INLINE void store_sums(const Vector (&sums)[ROWS][ACROSS], Out out) {
        if (GELU) {
            alignas(64) float kept[ROWS * PANEL];
            store_tile(sums, {kept, PANEL});
            apply_gelu({kept, PANEL}, ROWS);
            const Terms terms = as_terms({kept, PANEL}, ROWS);
            for (int i = 0; i < units_of(ROWS); ++i) {
                store(out.data + i * out.stride, load(terms.data + i * PANEL));
                store(out.data + i * out.stride + LANES, load(terms.data + i * PANEL + LANES));
            }
            return;
        }
        UNROLL for (int i = 0; i < ROWS; i += TERMS)
            UNROLL for (int j = 0; j < ACROSS; ++j)
                store(out.data + i / TERMS * out.stride + j * LANES,
                      joined(sums[i][j], i + 1 < ROWS ? sums[i + 1][j] : Vector{}));
    }
};

struct AsRows {  // what the next product adds up along the tokens
    typedef Rows Out;
    static Out part(Out out, int64_t row) { return {out.data + row * out.stride, out.stride}; }
    template <int ROWS>
    static INLINE void store_sums(const Vector (&sums)[ROWS][ACROSS], Out out) {
        UNROLL for (int i = 0; i < ROWS; ++i)
            UNROLL for (int j = 0; j < ACROSS; ++j)
                store(out.data + i * out.stride + j * LANES, sums[i][j]);
    }
};
#else
template <bool GELU>
using AsTerms = AsPanel<GELU>;
typedef AsPanel<false> AsRows;
#endif

// out = W x + bias, for a tile of packed rows of W
template <typename Store>
struct Linear {
    typedef typename Store::Out Out;
    typedef void Function(const float *packed, const float *bias, int64_t bias_stride,
                          int64_t depth, Terms x, Out out);

    template <int ROWS>
    struct Tile {
        static void run(const float *packed, const float *bias, int64_t bias_stride, int64_t depth,
                        Terms x, Out out) {
            const Unit *const weights = reinterpret_cast<const Unit *>(packed);
            Vector sums[ROWS][ACROSS];
            UNROLL for (int i = 0; i < ROWS; ++i) {
                if (bias_stride) {  // one for each token
                    sums[i][0] = load(bias + i * bias_stride);
                    sums[i][1] = load(bias + i * bias_stride + LANES);
                } else {
                    sums[i][0] = sums[i][1] = splat(bias[i]);
                }
            }
            accumulate_in_parts(sums, weights, Adjacent{ROWS}, x.data, x.stride, depth, out);
            Store::store_sums(sums, out);
        }
    };
    static constexpr ByRows<Tile, Function> TILES{};
};

// A layer for the tokens of a panel; `token` is the place of the first one in its window.
template <typename Store>
static void apply_linear(const RestoreLinear &layer, int64_t token, int64_t padded_tokens, Terms x,
                         typename Store::Out out) {
    const int64_t tiles = count_tiles(layer.outputs);
    for (int64_t t = 0; t < tiles; ++t) {
        const int64_t start = tile_start(layer.outputs, tiles, t);
        const int64_t rows = tile_start(layer.outputs, tiles, t + 1) - start;
        const float *bias = layer.per_token ? layer.bias + start * padded_tokens + token
                                            : layer.bias + start;
        Linear<Store>::TILES.of[rows](layer.packed + start * units_of(layer.inputs), bias,
                                      layer.per_token ? padded_tokens : 0, layer.inputs, x,
                                      Store::part(out, start));
    }
}

static void apply_linear(const RestoreLinear &layer, int64_t token, int64_t padded_tokens,
                         bool gelu_behind, Terms x, Panel out) {
    if (gelu_behind) {
        apply_linear<AsPanel<true>>(layer, token, padded_tokens, x, out);
    } else {
        apply_linear<AsPanel<false>>(layer, token, padded_tokens, x, out);
    }
}

// second (GELU of, if told so) first of x; `between` is of units of the first one's outputs
static void apply_both(const RestoreLinear &first, bool gelu_between, const RestoreLinear &second,
                       Terms x, Terms between, Panel out) {
    if (gelu_between) apply_linear<AsTerms<true>>(first, 0, 0, x, between);
    else apply_linear<AsTerms<false>>(first, 0, 0, x, between);
    apply_linear(second, 0, 0, false, between, out);
}

// The floats of `packed` are units.
static void pack(const float *weight, int64_t outputs, int64_t inputs, float *packed) {
    const int64_t tiles = count_tiles(outputs);
    Unit *to = reinterpret_cast<Unit *>(packed);
    for (int64_t t = 0; t < tiles; ++t) {
        const int64_t start = tile_start(outputs, tiles, t);
        const int64_t stop = tile_start(outputs, tiles, t + 1);
        for (int64_t k = 0; k < inputs; k += TERMS)
            for (int64_t i = start; i < stop; ++i)
                *to++ = unit_of(weight + i * inputs + k, inputs - k);
    }
}

}  // namespace ISA
