// An MLP with a depthwise convolution in its middle, for images cut into blocks of pixels.
//
// The pixels of a block are counted row by row, and its hidden map lies channel by channel, as
// panels do. So a neighbour in another row is a fixed distance away, wherever a panel begins and
// however short the rows are; beyond the ends of a row, masks hide what is not its neighbour.
#pragma once

#include "parallel.h"
#include "tokens.h"

namespace ISA {

// For each column of the kernel and each token of a panel: all bits, or none beyond the row.
template <int SIDE>
struct EdgeMasks {
    alignas(64) int32_t of[SIDE][PANEL];
    bool any = false;

    EdgeMasks(int64_t token, int64_t width) {
        int64_t x = token % width;
        if (x >= SIDE / 2 && x + PANEL + SIDE / 2 <= width) return;
        any = true;
        for (int64_t t = 0; t < PANEL; ++t) {
            for (int64_t i = 0; i < SIDE; ++i) {
                const int64_t other = x + i - SIDE / 2;
                of[i][t] = other < 0 || other >= width ? 0 : -1;
            }
            if (++x == width) x = 0;
        }
    }
};

// The channels of a panel convolved by SIDE x SIDE numbers each, and the GELU of it.
template <int SIDE>
struct ConvolvedPanel {
    const float *hidden;  // the panel in the map
    int64_t stride, width;  // from channel to channel, and from row to row
    const float *weight;    // [channels, SIDE, SIDE]
    const float *bias;      // [channels]
    bool added;             // whether the map is added to the GELU

    // Units of `channels` channels to `out`.
    void run(int64_t channels, const EdgeMasks<SIDE> &masks, Terms out) const {
        if (masks.any) rows<true>(channels, masks, out);
        else rows<false>(channels, masks, out);
    }

  private:
    template <bool EDGE>
    void rows(int64_t channels, const EdgeMasks<SIDE> &masks, Terms out) const {
        for (int64_t unit = 0; unit < units_of(channels); ++unit) {
            Vector sums[TERMS][ACROSS] = {};
            UNROLL for (int i = 0; i < TERMS; ++i) {
                if (unit * TERMS + i < channels) row<EDGE>(unit * TERMS + i, masks, sums[i]);
            }
            UNROLL for (int half = 0; half < ACROSS; ++half) {
                Vector terms[TERMS];
                UNROLL for (int i = 0; i < TERMS; ++i) terms[i] = sums[i][half];
                store(out.data + unit * out.stride + half * LANES, joined(terms));
            }
        }
    }

    template <bool EDGE>
    INLINE void row(int64_t channel, const EdgeMasks<SIDE> &masks, Vector (&out)[ACROSS]) const {
        const float *const here = hidden + channel * stride;
        const float *const taps = weight + channel * SIDE * SIDE;
        Vector all[ACROSS];
        UNROLL for (int half = 0; half < ACROSS; ++half) all[half] = splat(bias[channel]);
        UNROLL for (int dy = 0; dy < SIDE; ++dy) {
            const float *const line = here + (dy - SIDE / 2) * width - SIDE / 2;
            Vector own[ACROSS] = {};  // rounding errors grow with the length of a sum
            Vector(&sums)[ACROSS] = SIDE > 3 ? own : all;
            UNROLL for (int dx = 0; dx < SIDE; ++dx) {
                const Vector tap = splat(taps[dy * SIDE + dx]);
                UNROLL for (int half = 0; half < ACROSS; ++half) {
                    Vector v = load(line + dx + half * LANES);
                    if (EDGE && dx != SIDE / 2) {
                        const Integers mask = load(masks.of[dx] + half * LANES);
                        v = reinterpret_cast<Vector>(reinterpret_cast<Integers>(v) & mask);
                    }
                    sums[half] += tap * v;
                }
            }
            if (SIDE > 3)
                UNROLL for (int half = 0; half < ACROSS; ++half) all[half] += own[half];
        }
        UNROLL for (int half = 0; half < ACROSS; ++half) {
            out[half] = gelu(all[half]);
            if (added) out[half] += load(here + half * LANES);
        }
    }
};

// out += W x, for a tile of packed rows of W
template <int ROWS>
struct AddedLinearTile {
    static void run(const float *packed, int64_t depth, Terms x, Panel out) {
        const Unit *const weights = reinterpret_cast<const Unit *>(packed);
        const int64_t most = TERMS == 1 ? MOST_TERMS : depth;
        for (int64_t k = 0; k < depth; k += most) {
            Vector sums[ROWS][ACROSS] = {};
            accumulate(sums, weights + units_of(k) * ROWS, Adjacent{ROWS},
                       x.data + units_of(k) * x.stride, x.stride, depth - k < most ? depth - k : most);
            add_tile(sums, out);
            store_tile(sums, out);
        }
    }
};
typedef void AddedLinearFunction(const float *, int64_t, Terms, Panel);
static constexpr ByRows<AddedLinearTile, AddedLinearFunction> ADDED_LINEAR_TILES;

struct ConvMlpWork {
    const RestoreConvMlp *call;
    int64_t reach;          // rows and columns that the convolution sees on either side
    int64_t columns, rows;  // of a block
    int64_t across, down;   // blocks of an image
    int64_t margin;         // tokens kept before and behind those that are convolved
    int64_t chunk;          // tokens that are convolved before the map is moved on
    int64_t stride;         // of a hidden channel: an odd number of cache lines

    static constexpr int64_t GROUP = 2;  // panels that use a tile of weights one after the other
    static constexpr int64_t WIDEST = 192;        // columns of a block
    static constexpr int64_t MOST_FLOATS = 163840;  // of the hidden map where it can be: of a cache

    ConvMlpWork(const RestoreConvMlp *c, int64_t threads) : call(c), reach(c->side / 2) {
        across = (c->width + WIDEST - 1) / WIDEST;
        columns = (c->width + across - 1) / across;
        // each cut computes rows twice, so there are few: two blocks for a thread, or one
        const int64_t others = c->images * across;
        const int64_t most = c->height / (2 * reach + 1);
        down = (threads + others - 1) / others;
        if (threads > 1 && c->height / (2 * down) >= 16 * reach) down *= 2;
        if (down > most) down = most;
        if (threads == 1 || down < 1) down = 1;
        rows = (c->height + down - 1) / down;
        down = (c->height + rows - 1) / rows;
        const int64_t width = columns + 2 * reach < c->width ? columns + 2 * reach : c->width;
        margin = padded(reach * width + reach);
        const int64_t all = padded(rows * width);
        chunk = (MOST_FLOATS / c->widen.outputs - 2 * margin) / (GROUP * PANEL) * GROUP * PANEL;
        if (chunk < GROUP * PANEL) chunk = GROUP * PANEL;
        if (chunk > all) chunk = all;
        stride = chunk + 2 * margin + LANES;
        if (stride / LANES % 2 == 0) stride += LANES;
    }

    int64_t items() const { return call->images * down * across; }
    int64_t scratch() const {
        const RestoreConvMlp &c = *call;
        return c.widen.outputs * stride +
               GROUP * PANEL * (c.channels + c.narrow.outputs + RESTORE_BLOCK);
    }

    struct Buffers {  // panels of a group side by side, then the hidden map
        float *x, *first_y, *z, *hidden;
        int64_t outputs;

        Buffers(const RestoreConvMlp &c, float *scratch)
            : x(scratch), first_y(x + GROUP * PANEL * c.channels),
              z(first_y + GROUP * PANEL * c.narrow.outputs),
              hidden(z + GROUP * PANEL * RESTORE_BLOCK), outputs(c.narrow.outputs) {}

        Panel y(int64_t panel) const { return {first_y + panel * PANEL * outputs, PANEL}; }
        Terms convolved(int64_t panel) const {
            return {reinterpret_cast<Unit *>(z + panel * PANEL * RESTORE_BLOCK), PANEL};
        }
    };

    struct Block {  // its pixels, and those that it sees beside them
        int64_t image, top, bottom;  // of the rows that are given
        int64_t left, right;         // of the columns that are given
        int64_t start, width;        // of the columns that are counted
        int64_t first, last;         // tokens of the rows that are given
        int64_t low, high;           // tokens whose hidden channels are needed
    };

    Block block(int64_t item) const {
        const RestoreConvMlp &c = *call;
        Block b;
        b.image = item / (down * across);
        b.top = item / across % down * rows;
        b.bottom = b.top + rows < c.height ? b.top + rows : c.height;
        b.left = item % across * columns;
        b.right = b.left + columns < c.width ? b.left + columns : c.width;
        b.start = b.left > reach ? b.left - reach : 0;
        b.width = (b.right + reach < c.width ? b.right + reach : c.width) - b.start;
        b.first = b.top * b.width;
        b.last = b.bottom * b.width;
        b.low = (b.top > reach ? b.top - reach : 0) * b.width;
        b.high = (b.bottom + reach < c.height ? b.bottom + reach : c.height) * b.width;
        return b;
    }

    static void run(const void *self, int64_t item, float *scratch) {
        const ConvMlpWork &work = *static_cast<const ConvMlpWork *>(self);
        if (work.call->side == 3) work.run<3>(item, scratch);
        else if (work.call->side == 5) work.run<5>(item, scratch);
        else work.run<7>(item, scratch);
    }

    template <int SIDE>
    void run(int64_t item, float *scratch) const {
        const Block b = block(item);
        const Buffers at(*call, scratch);
        float *const hidden = at.hidden;
        for (int64_t t = -margin; t < margin; t += GROUP * PANEL)
            widen(b, b.first + t, (margin - t) / PANEL, at.x, {hidden + t + margin, stride});
        for (int64_t start = b.first; start < b.last; start += chunk) {
            const int64_t end = start + chunk < b.last ? start + chunk : b.last;
            const int64_t panels = (end - start + PANEL - 1) / PANEL;
            for (int64_t i = 0; i < panels; i += GROUP)
                widen(b, start + margin + i * PANEL, panels - i, at.x,
                      {hidden + i * PANEL + 2 * margin, stride});
            for (int64_t i = 0; i < panels; i += GROUP)
                narrow<SIDE>(b, start + i * PANEL, panels - i,
                             {hidden + i * PANEL + margin, stride}, at);
            if (end < b.last) move_on(hidden);
        }
    }

    // The first of `panels` panels from `token` on: GROUP of them, where there are so many.
    template <int SIDE>
    void narrow(const Block &b, int64_t token, int64_t panels, Panel hidden,
                const Buffers &at) const {
        const RestoreConvMlp &c = *call;
        if (panels > GROUP) panels = GROUP;
        for (int64_t p = 0; p < panels; ++p) begin(at.y(p));
        for (int64_t i = 0; i < c.widen.outputs; i += RESTORE_BLOCK) {
            const int64_t rest = c.widen.outputs - i;
            const int64_t count = rest < RESTORE_BLOCK ? rest : RESTORE_BLOCK;
            for (int64_t p = 0; p < panels; ++p) {
                const ConvolvedPanel<SIDE> panel{
                    hidden.data + i * stride + p * PANEL, stride, b.width,
                    c.weight + i * SIDE * SIDE, c.bias + i, c.added != 0};
                panel.run(count, EdgeMasks<SIDE>(token + p * PANEL, b.width), at.convolved(p));
            }
            add(i, count, panels, at);
        }
        for (int64_t p = 0; p < panels; ++p) {
            if (c.out.half) give<Value>(b, token + p * PANEL, at.y(p));
            else give<float>(b, token + p * PANEL, at.y(p));
        }
    }

    void begin(Panel y) const {
        for (int64_t i = 0; i < call->narrow.outputs; ++i)
            for (int64_t half = 0; half < PANEL; half += LANES)
                store(y.data + i * y.stride + half, splat(call->narrow.bias[i]));
    }

    // y + what a block of hidden channels, from `first` on, gives
    void add(int64_t first, int64_t count, int64_t panels, const Buffers &at) const {
        const int64_t outputs = call->narrow.outputs, tiles = count_tiles(outputs);
        const float *const weights = call->narrow.packed + outputs * units_of(first);
        for (int64_t t = 0; t < tiles; ++t) {
            const int64_t start = tile_start(outputs, tiles, t);
            const int64_t rows = tile_start(outputs, tiles, t + 1) - start;
            for (int64_t p = 0; p < panels; ++p)
                ADDED_LINEAR_TILES.of[rows](weights + start * units_of(count), count,
                                            at.convolved(p), part_of(at.y(p), start));
        }
    }

    static Panel part_of(Panel x, int64_t row) { return {x.data + row * x.stride, x.stride}; }

    void move_on(float *hidden) const {
        for (int64_t i = 0; i < call->widen.outputs; ++i) {
            float *const row = hidden + i * stride;
            for (int64_t t = 0; t < 2 * margin; t += LANES) store(row + t, load(row + t + chunk));
        }
    }

    // The hidden channels of the tokens from `token` on; 0 above and below the image. See `narrow`.
    void widen(const Block &b, int64_t token, int64_t panels, float *scratch, Panel hidden) const {
        const RestoreConvMlp &c = *call;
        if (panels > GROUP) panels = GROUP;
        const int64_t end = token + panels * PANEL;
        int64_t from = 0, to = panels;  // of the panels that have tokens within
        while (from < to && token + (from + 1) * PANEL <= b.low) ++from;
        while (from < to && token + (to - 1) * PANEL >= b.high) --to;
        if (from < to) {
            Terms terms[GROUP];
            for (int64_t p = from; p < to; ++p) {
                const Panel x{scratch + p * c.channels * PANEL, PANEL};
                if (c.x.half) take<Value>(b, token + p * PANEL, x);
                else take<float>(b, token + p * PANEL, x);
                if (c.normalise) normalise(x, c.channels, c.eps, x);
                terms[p] = as_terms(x, c.channels);
            }
            const int64_t tiles = count_tiles(c.widen.outputs);
            for (int64_t t = 0; t < tiles; ++t) {
                const int64_t start = tile_start(c.widen.outputs, tiles, t);
                const int64_t rows = tile_start(c.widen.outputs, tiles, t + 1) - start;
                const float *const weights = c.widen.packed + start * units_of(c.widen.inputs);
                for (int64_t p = from; p < to; ++p) {
                    const Panel out = part_of(hidden, start);
                    Linear<AsPanel<true>>::TILES.of[rows](weights, c.widen.bias + start, 0,
                                                          c.widen.inputs, terms[p],
                                                          {out.data + p * PANEL, out.stride});
                }
            }
            if (token >= 0 && end <= c.height * b.width) return;
        }
        for (int64_t i = 0; i < c.widen.outputs; ++i) {
            float *const row = hidden.data + i * hidden.stride - token;
            for (int64_t t = token; t < end && t < b.low; ++t) row[t] = 0.0f;
            for (int64_t t = token > b.high ? token : b.high; t < end; ++t) row[t] = 0.0f;
        }
    }

    // Where LANES tokens lie in a map; those beyond what is needed are the nearest that is.
    template <typename Number>
    void find(const RestoreMap &map, const Block &b, int64_t token, Number **at) const {
        Number *const image = static_cast<Number *>(map.data) + b.image * map.image;
        const int64_t from = token < b.low ? b.low : token < b.high ? token : b.high - 1;
        int64_t y = from / b.width, x = from % b.width;
        for (int64_t t = 0; t < LANES; ++t) {
            at[t] = image + y * map.row + (b.start + x) * map.column;
            if (token + t < b.low || token + t + 1 >= b.high) continue;
            if (++x == b.width) {
                x = 0;
                ++y;
            }
        }
    }

    template <typename Number>
    void take(const Block &b, int64_t token, Panel x) const {
        for (int64_t half = 0; half < PANEL; half += LANES) {
            Number *at[LANES];
            find(call->x, b, token + half, at);
            gather(at, call->channels, 1.0f, {x.data + half, x.stride});
        }
    }

    template <typename Number>
    void give(const Block &b, int64_t token, Panel y) const {
        const RestoreConvMlp &c = *call;
        for (int64_t half = 0; half < PANEL; half += LANES) {
            Number *to[LANES], *residual[LANES];
            find(c.out, b, token + half, to);
            if (c.residual.data) find(c.residual, b, token + half, residual);
            int64_t column = b.start + (token + half) % b.width;
            int64_t begun = 0;  // of a run of tokens that are given
            for (int64_t t = 0; t <= LANES; ++t) {
                const bool given = t < LANES && token + half + t < b.last &&
                                   column >= b.left && column < b.right;
                if (!given) {
                    if (t > begun)
                        scatter({y.data + half + begun, y.stride}, c.narrow.outputs,
                                c.residual.data ? residual + begun : nullptr, to + begun,
                                t - begun);
                    begun = t + 1;
                }
                if (++column == b.start + b.width) column = b.start;
            }
        }
    }
};

static int64_t conv_mlp(const RestoreConvMlp *call, int64_t threads) {
    const ConvMlpWork work(call, threads);
    return !restore_native::run_in_parallel(threads, work.items(), work.scratch(),
                                            ConvMlpWork::run, &work);
}

}  // namespace ISA
