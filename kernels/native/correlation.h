// Correlation of pixels with reduced values and of channels with channels, as HiT-SR has it.
//
// Without a softmax both are products of a pixel with small matrices of its window. First these are
// added up, in parts of each window; then pixels are multiplied by them, a panel at a time, and go
// on through the linear layer, the norm and the residual.
#pragma once

#include "parallel.h"
#include "places.h"
#include "products.h"

namespace ISA {

// A row of numbers as floats.
template <typename Number>
static void copy_row(const Number *from, int64_t count, float *to) {
    if (count < LANES) {
        for (int64_t i = 0; i < count; ++i) to[i] = get(from + i);
        return;
    }
    for (int64_t i = 0; i < vectors_in(count); ++i) {
        const int64_t at = vector_start(count, i);
        store(to + at, load(from + at));
    }
}

static void fill_rows(Panel x, int64_t rows) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t half = 0; half < PANEL; half += LANES)
            store(x.data + i * x.stride + half, Vector{});
}

// out += scalars times vectors, in parts
static void add_sums(Scalars scalars, int64_t rows, Panel vectors, int64_t depth, Panel out) {
    for (int64_t k = 0; k < depth; k += MOST_TERMS)
        Product<Added>::run({scalars.data + k * scalars.stride, scalars.stride}, rows,
                            {vectors.data + k * vectors.stride, vectors.stride},
                            depth - k < MOST_TERMS ? depth - k : MOST_TERMS, out);
}

// What is added to correlations, by where that of each block and the first pixel of a panel lies.
struct Positions {
    const float *bias;
    const int32_t *block_at;
    int64_t blocks;
};

// out[i] = sum over a head's queries, then over reduced values times positions, for a tile of rows
template <int ROWS>
struct SpatialTile {
    static void run(Scalars folded, Panel query, int64_t depth, Scalars reduced,
                    const Positions &positions, Panel out) {
        Vector sums[ROWS][ACROSS] = {};
        accumulate(sums, folded.data, Adjacent{folded.stride}, query.data, query.stride, depth);
        for (int64_t m = 0; m < positions.blocks; ++m) {
            if (m && m % MOST_TERMS == 0) {  // sums of many terms are made of shorter ones
                if (m > MOST_TERMS) add_tile(sums, out);
                store_tile(sums, out);
                UNROLL for (int i = 0; i < ROWS; ++i) sums[i][0] = sums[i][1] = Vector{};
            }
            const float *const bias = positions.bias + positions.block_at[m];
            const float *const scalars = reduced.data + m * reduced.stride;
            const Vector v0 = load(bias), v1 = load(bias + LANES);
            UNROLL for (int i = 0; i < ROWS; ++i) {
                const Vector s = splat(scalars[i]);
                sums[i][0] += s * v0;
                sums[i][1] += s * v1;
            }
        }
        if (positions.blocks > MOST_TERMS) add_tile(sums, out);
        store_tile(sums, out);
    }
};
typedef void SpatialFunction(Scalars, Panel, int64_t, Scalars, const Positions &, Panel);
static constexpr ByRows<SpatialTile, SpatialFunction> SPATIAL_TILES;

struct CorrelationWork {
    const RestoreCorrelation *call;
    Windows windows;
    int64_t half;    // of the channels: queries, or values
    int64_t wide;    // the same, padded to a panel
    int64_t blocks, blocks_across;
    int64_t together, pieces;  // windows of an item, or items of a window
    int64_t piece;             // tokens
    int64_t stride;            // of a feature: an odd number of cache lines, so that all sets are used

    static constexpr int64_t TOKENS = 8 * PANEL;  // of an item, about
    static constexpr int64_t SQUARES = 16;        // added up at once

    explicit CorrelationWork(const RestoreCorrelation *c)
        : call(c), windows(c->images, c->down * c->grid.rows, c->across * c->grid.columns, c->grid),
          half(c->channels / 2), wide(padded(half)),
          blocks(c->grid.tokens / (c->block_rows * c->block_columns)),
          blocks_across(c->grid.columns / c->block_columns) {
        const int64_t tokens = c->grid.tokens;
        together = tokens < TOKENS ? TOKENS / tokens : 1;
        pieces = (tokens + TOKENS - 1) / TOKENS;
        piece = together > 1 ? together * tokens : TOKENS;
        stride = padded(piece) + PANEL + LANES;
    }

    // Sums of a window, each in parts: of channels, then of squares; then its reduced values.
    struct Sums {
        float *parts, *values;
    };
    int64_t sums_of_window() const { return (call->parts * 2 * half + blocks) * wide; }
    Sums sums_at(float *data) const { return {data, data + call->parts * 2 * half * wide}; }
    Sums sums(int64_t window) const { return sums_at(call->sums + window * sums_of_window()); }

    // Whether windows are added up by the item that goes on with them.
    bool alone() const { return pieces == 1 && call->parts == 1; }

    // Rows of queries and values, whose ends stay 0.
    int64_t rows_scratch() const { return MOST_TERMS * 2 * wide; }
    void clear_rows(float *rows) const {
        std::memset(rows, 0, static_cast<size_t>(rows_scratch()) * sizeof(float));
    }

    static void add_up(const void *self, int64_t item, float *scratch) {
        const CorrelationWork &work = *static_cast<const CorrelationWork *>(self);
        const int64_t window = item / work.call->parts;
        work.clear_rows(scratch);
        work.add_up(window, item % work.call->parts, scratch, work.sums(window));
    }

    void add_up(int64_t window, int64_t part, float *rows, const Sums &to) const {
        const RestoreCorrelation &c = *call;
        const int64_t count = c.grid.tokens / c.parts, first = part * count;
        float *const correlation = to.parts + part * 2 * half * wide;
        float *const squares = correlation + half * wide;
        const int64_t its_blocks = blocks / c.parts;
        float *const values = to.values + part * its_blocks * wide;
        std::memset(correlation, 0, static_cast<size_t>(2 * half * wide) * sizeof(float));
        std::memset(values, 0, static_cast<size_t>(its_blocks * wide) * sizeof(float));
        for (int64_t t = 0; t < count; t += MOST_TERMS) {
            const int64_t tokens = count - t < MOST_TERMS ? count - t : MOST_TERMS;
            if (c.qv.half) read<Value>(window, first + t, tokens, rows);
            else read<float>(window, first + t, tokens, rows);
            for (int64_t column = 0; column < half; column += PANEL)
                Product<Added>::run({rows + wide, 2 * wide}, half, {rows + column, 2 * wide},
                                    tokens, {correlation + column, wide});
            reduce(rows + wide, t, tokens, values);
        }
        for (int64_t m = 0; m < its_blocks; ++m)
            for (int64_t i = 0; i < wide; i += LANES) {
                float *const at = values + m * wide + i;
                store(at, load(at) + c.bias[0]);
            }
        // some rows of blocks at a time: every step of a sum of squares rounds all it has come to
        const int64_t few = (blocks_across < SQUARES ? SQUARES / blocks_across : 1) * blocks_across;
        for (int64_t m = 0; m < its_blocks; m += few)
            for (int64_t column = 0; column < half; column += PANEL)
                add_sums({values + m * wide, wide}, half, {values + m * wide + column, wide},
                         its_blocks - m < few ? its_blocks - m : few, {squares + column, wide});
    }

    // Tokens of a window as rows of queries and values, each padded to a panel.
    template <typename Number>
    void read(int64_t window, int64_t first, int64_t count, float *to) const {
        for (int64_t t = 0; t < count; t += LANES) {
            Pixels pixels;
            Number *rows[LANES];
            const int64_t rest = count - t < LANES ? count - t : LANES;
            pixels.find(windows, call->grid, window, first + t, rest);
            pixels.in(call->qv, rows);
            for (int64_t i = 0; i < rest; ++i) {
                float *const row = to + (t + i) * 2 * wide;
                copy_row(rows[i], half, row);
                copy_row(rows[i] + half, half, row + wide);
            }
        }
    }

    // Add weighted values to those of their blocks; `token` counts from the first of these.
    void reduce(const float *rows, int64_t token, int64_t count, float *values) const {
        const RestoreCorrelation &c = *call;
        for (int64_t t = 0; t < count;) {
            const int64_t row = (token + t) / c.grid.columns, column = (token + t) % c.grid.columns;
            const int64_t within = column % c.block_columns;
            const int64_t run = c.block_columns - within < count - t ? c.block_columns - within
                                                                    : count - t;
            const float *const weight =
                c.weight + row % c.block_rows * c.block_columns + within;
            float *const value = values + (row / c.block_rows * blocks_across +
                                           column / c.block_columns) * wide;
            for (int64_t i = 0; i < wide; i += LANES) {
                Vector sum{};
                for (int64_t n = 0; n < run; ++n)
                    sum += weight[n] * load(rows + (t + n) * 2 * wide + i);
                store(value + i, load(value + i) + sum);
            }
            t += run;
        }
    }

    // queries and values, then what is between the linear layer and the norm; matrices of a window;
    // what becomes of the tokens; what lies outside; what adding up a window takes
    int64_t scratch() const {
        return call->channels * (PANEL + stride + 1) + 2 * half * wide +
               (alone() ? rows_scratch() + sums_of_window() : 0);
    }

    static void run(const void *self, int64_t item, float *scratch) {
        static_cast<const CorrelationWork *>(self)->run(item, scratch);
    }

    void run(int64_t item, float *scratch) const {
        const RestoreCorrelation &c = *call;
        const int64_t first = item / pieces * together, token = item % pieces * piece;
        const int64_t left = windows.count() - first, count = left < together ? left : together;
        const int64_t tokens = together > 1 ? count * c.grid.tokens
                               : c.grid.tokens - token < piece ? c.grid.tokens - token : piece;
        const Panel x{scratch, PANEL};
        float *const matrices = scratch + c.channels * PANEL;
        const Panel mixed{matrices + 2 * half * wide, stride};
        float *const outside = mixed.data + c.channels * stride;
        float *const rows = outside + c.channels;
        if (alone()) clear_rows(rows);
        for (int64_t w = 0; w < count; ++w) {
            const Sums its_sums = alone() ? sums_at(rows + rows_scratch()) : sums(first + w);
            if (alone()) add_up(first + w, 0, rows, its_sums);
            add_parts(its_sums, matrices);
            const int64_t its = together > 1 ? c.grid.tokens : tokens;
            for (int64_t t = 0; t < its; t += PANEL)
                if (any_inside(first + w, token + t, its - t))
                    mix(first + w, token + t, its - t, matrices, its_sums.values, x,
                        {mixed.data + w * c.grid.tokens + t, stride});
        }
        for (int64_t t = 0; t < tokens; t += PANEL) {
            if (!any_inside(first, token + t, tokens - t)) continue;
            const Panel panel{mixed.data + t, stride};
            apply_linear(c.proj, 0, 0, false, as_terms(panel, c.channels), x);
            normalise(x, c.channels, c.eps, x);
            scale_and_shift(x, c.channels, c.norm_weight, c.norm_bias);
            for (int64_t half = 0; half < PANEL && t + half < tokens; half += LANES) {
                const Panel part{x.data + half, PANEL};
                const int64_t at = token + t + half, rest = tokens - t - half;
                if (c.out.half) give<Value>(first, at, rest, part, outside);
                else give<float>(first, at, rest, part, outside);
            }
        }
    }

    // Whether any of at most PANEL tokens lies in the map that is written.
    bool any_inside(int64_t first, int64_t token, int64_t count) const {
        const RestoreCorrelation &c = *call;
        if (c.height == c.down * c.grid.rows && c.width == c.across * c.grid.columns) return true;
        for (int64_t half = 0; half < PANEL && half < count; half += LANES) {
            Pixels pixels;
            pixels.find(windows, c.grid, first, token + half, count - half);
            for (int64_t t = 0; t < LANES; ++t)
                if (pixels.y[t] < c.height && pixels.x[t] < c.width) return true;
        }
        return false;
    }

    // The mean correlation of channels, then squares over the channels of a head, of all parts.
    void add_parts(const Sums &its, float *matrices) const {
        const RestoreCorrelation &c = *call;
        const float mean = 1.0f / static_cast<float>(c.grid.tokens);
        const float share = 1.0f / static_cast<float>(half / c.heads);
        for (int64_t i = 0; i < 2 * half * wide; i += LANES) {
            Vector sum = load(its.parts + i);
            for (int64_t part = 1; part < c.parts; ++part)
                sum += load(its.parts + part * 2 * half * wide + i);
            store(matrices + i, sum * (i < half * wide ? mean : share));
        }
    }

    template <typename Number>
    void take(int64_t window, int64_t token, int64_t count, Panel x) const {
        for (int64_t half = 0; half < PANEL; half += LANES) {
            // beyond the last token the last one once more: finite, and never written back
            const int64_t from = half < count ? half : count - 1;
            Pixels pixels;
            Number *rows[LANES];
            pixels.find(windows, call->grid, window, token + from, count - from);
            pixels.in(call->qv, rows);
            gather(rows, call->channels, 1.0f, {x.data + half, x.stride});
        }
    }

    // Both correlations of the `count` tokens of a window from one on, of a panel at most.
    void mix(int64_t window, int64_t token, int64_t count, const float *matrices,
             const float *values, Panel x, Panel out) const {
        const RestoreCorrelation &c = *call;
        if (c.qv.half) take<Value>(window, token, count, x);
        else take<float>(window, token, count, x);
        const Panel spread{out.data + half * out.stride, out.stride};
        fill_rows(spread, half);
        add_sums({matrices, wide}, half, {x.data + half * PANEL, PANEL}, half, spread);
        const float *const squares = matrices + half * wide;
        const int64_t each = half / c.heads, tiles = count_tiles(each);
        for (int64_t h = 0; h < c.heads; ++h) {
            const int64_t channel = h * each;
            const Positions positions{c.position + h * c.position_stride + token, c.block_at,
                                      blocks};
            for (int64_t i = 0; i < tiles; ++i) {
                const int64_t start = tile_start(each, tiles, i);
                const int64_t rows = tile_start(each, tiles, i + 1) - start;
                SPATIAL_TILES.of[rows]({squares + channel * wide + channel + start, wide},
                                       {x.data + channel * PANEL, PANEL}, each,
                                       {values + channel + start, wide}, positions,
                                       {out.data + (channel + start) * stride, stride});
            }
        }
    }

    template <typename Number>
    void give(int64_t first, int64_t token, int64_t count, Panel y, float *outside) const {
        const RestoreCorrelation &c = *call;
        Pixels pixels;
        Number *rows[LANES], *residual[LANES];
        Number *const nowhere = reinterpret_cast<Number *>(outside);
        pixels.find(windows, c.grid, first, token, count);
        for (int64_t t = 0; t < LANES; ++t)
            if (pixels.y[t] >= c.height || pixels.x[t] >= c.width) pixels.image[t] = -1;
        pixels.in(c.out, rows, nowhere);
        pixels.in(c.residual, residual, nowhere);
        scatter(y, c.channels, residual, rows, count < LANES ? count : LANES);
    }
};

static int64_t correlation(const RestoreCorrelation *call, int64_t threads) {
    using restore_native::run_in_parallel;
    const CorrelationWork work(call);
    const int64_t windows = work.windows.count();
    const int64_t items = (windows + work.together - 1) / work.together * work.pieces;
    return !((work.alone() || run_in_parallel(threads, windows * call->parts, work.rows_scratch(),
                                              CorrelationWork::add_up, &work)) &&
             run_in_parallel(threads, items, work.scratch(), CorrelationWork::run, &work));
}

}  // namespace ISA
