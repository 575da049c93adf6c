// The gated projection of HiT-SR: a branch of convolutions times a linear layer.
#pragma once

#include "parallel.h"
#include "places.h"
#include "tokens.h"

namespace ISA {

// Where an entry of an axis grown at its end comes from, reflecting as often as needed.
INLINE int64_t reflected(int64_t at, int64_t length) {
    if (at < length) return at;
    if (length == 1) return 0;
    const int64_t period = 2 * (length - 1), rest = at % period;
    return rest < period - rest ? rest : period - rest;
}

static void apply_leaky(Panel x, int64_t rows, float slope) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t half = 0; half < PANEL; half += LANES) {
            float *const at = x.data + i * x.stride + half;
            const Vector v = load(at);
            store(at, v > 0.0f ? v : v * slope);
        }
}

struct AsFactor {  // of what is there
    typedef Panel Out;
    static Out part(Out out, int64_t row) { return {out.data + row * out.stride, out.stride}; }
    template <int ROWS>
    static INLINE void store_sums(const Vector (&sums)[ROWS][ACROSS], Out out) {
        UNROLL for (int i = 0; i < ROWS; ++i)
            UNROLL for (int j = 0; j < ACROSS; ++j) {
                float *const at = out.data + i * out.stride + j * LANES;
                store(at, load(at) * sums[i][j]);
            }
    }
};

// Some channels of a convolution of 3 x 3. Its input lies channel by channel, so that pixels beside
// and below each other are always as far apart.
struct Around {
    const Unit *corner;  // what the first pixel's upper left neighbour gives
    int64_t pitch, plane;
    int64_t channels;
};

template <int ROWS>
struct ConvolutionTile {
    static void run(const float *packed, const float *bias, const Around &x, Panel out) {
        const Unit *weights = reinterpret_cast<const Unit *>(packed);
        Vector sums[ROWS][ACROSS];
        UNROLL for (int i = 0; i < ROWS; ++i) sums[i][0] = sums[i][1] = splat(bias[i]);
        for (int64_t down = 0; down < 3; ++down) {
            if (down) UNROLL for (int i = 0; i < ROWS; ++i) sums[i][0] = sums[i][1] = Vector{};
            for (int64_t right = 0; right < 3; ++right) {
                accumulate(sums, weights, Adjacent{ROWS}, x.corner + down * x.pitch + right,
                           x.plane, x.channels);
                weights += units_of(x.channels) * ROWS;
            }
            if (down) add_tile(sums, out);  // sums of many terms are made of shorter ones
            store_tile(sums, out);
        }
    }
};
typedef void ConvolutionFunction(const float *, const float *, const Around &, Panel);
static constexpr ByRows<ConvolutionTile, ConvolutionFunction> CONVOLUTION_TILES;

struct GatedWork {
    const RestoreGated *call;
    int64_t pitch;  // of a row: behind each lies one pixel of zeros

    explicit GatedWork(const RestoreGated *c) : call(c), pitch(c->grown_width + 1) {}

    int64_t narrow() const { return call->squeeze.outputs; }
    int64_t panels() const { return (call->grown_height * pitch + PANEL - 1) / PANEL; }

    // Of the pixel at `row` and `column` of the grown map, whose rows begin with -1.
    Unit *squeezed(int64_t image, int64_t row, int64_t column) const {
        Unit *const all = reinterpret_cast<Unit *>(call->squeezed);
        return all + image * units_of(narrow()) * call->plane + (row + 1) * pitch + column + 1;
    }

    // Places of LANES pixels from one on in the grown map, or of the last one of a row and of the
    // map behind these. Which of them are pixels is `there`.
    template <typename Number>
    void find(const RestoreMap &map, int64_t image, int64_t row, int64_t column, bool grown,
              Number **rows, bool *there) const {
        const RestoreGated &c = *call;
        Number *const data = static_cast<Number *>(map.data) + image * map.image;
        for (int64_t t = 0; t < LANES; ++t) {
            there[t] = row < c.grown_height && column < c.grown_width;
            int64_t y = row < c.grown_height ? row : c.grown_height - 1;
            int64_t x = column < c.grown_width ? column : c.grown_width - 1;
            if (!grown) {
                y = reflected(y, c.height);
                x = reflected(x, c.width);
            }
            rows[t] = data + y * map.row + x * map.column;
            if (++column == pitch) {
                column = 0;
                ++row;
            }
        }
    }

    void take(int64_t image, int64_t row, int64_t column, Panel x) const {
        if (call->x.half) take_numbers<Value>(image, row, column, x);
        else take_numbers<float>(image, row, column, x);
    }

    template <typename Number>
    void take_numbers(int64_t image, int64_t row, int64_t column, Panel x) const {
        for (int64_t half = 0; half < PANEL; half += LANES) {
            Number *rows[LANES];
            bool there[LANES];
            const int64_t at = column + half;
            find(call->x, image, row + at / pitch, at % pitch, false, rows, there);
            gather(rows, call->channels, 1.0f, {x.data + half, x.stride});
        }
    }

    int64_t scratch() const {
        const RestoreGated &c = *call;
        return (c.channels + narrow() + 1 + c.widen.outputs + 1) * PANEL + c.widen.outputs;
    }

    static void squeeze(const void *self, int64_t item, float *scratch) {
        static_cast<const GatedWork *>(self)->squeeze(item, scratch);
    }

    // An item is a row of the grown map, one above and one below it, which are zeros.
    void squeeze(int64_t item, float *scratch) const {
        const RestoreGated &c = *call;
        const int64_t image = item / (c.grown_height + 2), row = item % (c.grown_height + 2) - 1;
        const int64_t planes = units_of(narrow());
        const bool outside = row < 0 || row == c.grown_height;
        for (int64_t i = 0; i < planes; ++i) {
            Unit *const line = squeezed(image, row, 0) + i * c.plane;
            if (row < 0) line[-1] = Unit{};
            for (int64_t x = outside ? 0 : c.grown_width; x < pitch; ++x) line[x] = Unit{};
        }
        if (outside) return;
        const Panel x{scratch, PANEL}, y{scratch + c.channels * PANEL, PANEL};
        for (int64_t column = 0; column < c.grown_width; column += PANEL) {
            take(image, row, column, x);
            apply_linear(c.squeeze, 0, 0, false, as_terms(x, c.channels), y);
            apply_leaky(y, narrow(), c.slope);
            const Terms terms = as_terms(y, narrow());
            const int64_t rest = c.grown_width - column, count = rest < PANEL ? rest : PANEL;
            for (int64_t i = 0; i < planes; ++i)
                std::memcpy(squeezed(image, row, column) + i * c.plane,
                            terms.data + i * terms.stride,
                            static_cast<size_t>(count) * sizeof(Unit));
        }
    }

    static void run(const void *self, int64_t item, float *scratch) {
        static_cast<const GatedWork *>(self)->run(item, scratch);
    }

    // An item is a panel of pixels, those behind rows among them.
    void run(int64_t item, float *scratch) const {
        const RestoreGated &c = *call;
        const int64_t image = item / panels(), first = item % panels() * PANEL;
        const int64_t row = first / pitch, column = first % pitch;
        const Panel x{scratch, PANEL}, narrowed{x.data + c.channels * PANEL, PANEL};
        const Panel y{narrowed.data + (narrow() + 1) * PANEL, PANEL};
        take(image, row, column, x);
        apply_linear(c.linear, 0, 0, false, as_terms(x, c.channels), y);
        const Around around{squeezed(image, row - 1, column - 1), pitch, c.plane, narrow()};
        const int64_t tiles = count_tiles(narrow());
        for (int64_t t = 0; t < tiles; ++t) {
            const int64_t start = tile_start(narrow(), tiles, t);
            const int64_t rows = tile_start(narrow(), tiles, t + 1) - start;
            CONVOLUTION_TILES.of[rows](
                c.convolution.packed + start * units_of(c.convolution.inputs),
                c.convolution.bias + start, around, AsFactor::part(narrowed, start));
        }
        apply_leaky(narrowed, narrow(), c.next_slope);
        apply_linear<AsFactor>(c.widen, 0, 0, as_terms(narrowed, narrow()), y);
        if (c.out.half) give<Value>(image, row, column, y);
        else give<float>(image, row, column, y);
    }

    template <typename Number>
    void give(int64_t image, int64_t row, int64_t column, Panel y) const {
        const RestoreGated &c = *call;
        Number *const nowhere = reinterpret_cast<Number *>(y.data + c.widen.outputs * PANEL);
        for (int64_t half = 0; half < PANEL; half += LANES) {
            Number *rows[LANES];
            bool there[LANES];
            const int64_t at = column + half;
            find(c.out, image, row + at / pitch, at % pitch, true, rows, there);
            for (int64_t t = 0; t < LANES; ++t)
                if (!there[t]) rows[t] = nowhere;
            scatter({y.data + half, y.stride}, c.widen.outputs, nullptr, rows, LANES);
        }
    }
};

static int64_t gated(const RestoreGated *call, int64_t threads) {
    using restore_native::run_in_parallel;
    const GatedWork work(call);
    return !(run_in_parallel(threads, call->images * (call->grown_height + 2), work.scratch(),
                             GatedWork::squeeze, &work) &&
             run_in_parallel(threads, call->images * work.panels(), work.scratch(), GatedWork::run,
                             &work));
}

}  // namespace ISA
