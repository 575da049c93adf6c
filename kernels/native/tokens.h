// Tokens in and out of panels: from [token][channel] in maps to [channel][token] and back.
//
// Maps hold numbers of type Number: float, or Half where products take bfloat16.
#pragma once

#include "tiles.h"

namespace ISA {

INLINE int64_t padded(int64_t tokens) { return (tokens + PANEL - 1) / PANEL * PANEL; }

// The first and the last vector of a row overlap where its length is no multiple of LANES.
INLINE int64_t vectors_in(int64_t channels) { return (channels + LANES - 1) / LANES; }
INLINE int64_t vector_start(int64_t channels, int64_t index) {
    const int64_t last = channels - LANES;
    return index * LANES < last ? index * LANES : last;
}

// Have the cache fetch a token that is needed soon.
template <typename Number>
INLINE void prefetch(const Number *row, int64_t channels) {
    constexpr int64_t LINE = 64 / sizeof(Number);
    for (int64_t c = 0; c < channels; c += LINE) __builtin_prefetch(row + c);
    __builtin_prefetch(row + channels - 1);
}

template <typename Number>
struct Same {  // keeps an argument from telling what Number is, so that it can be NULL
    typedef Number Type;
};

// LANES tokens at rows[0], rows[1], ... to out.data[channel * out.stride + token].
template <typename Number>
static void gather(const Number *const *rows, int64_t channels, float scale, Panel out) {
    if (channels < LANES) {
        for (int64_t c = 0; c < channels; ++c)
            for (int64_t t = 0; t < LANES; ++t)
                out.data[c * out.stride + t] = get(rows[t] + c) * scale;
        return;
    }
    for (int64_t i = 0; i < vectors_in(channels); ++i) {
        const int64_t c = vector_start(channels, i);
        Vector v[LANES];
        UNROLL for (int t = 0; t < LANES; ++t) v[t] = load(rows[t] + c);
        transpose(v);
        UNROLL for (int j = 0; j < LANES; ++j) store(out.data + (c + j) * out.stride, v[j] * scale);
    }
}

// The first `count` of LANES tokens back to their rows, plus what lies at `residual`'s, if anything.
template <typename Number>
static void scatter(Panel y, int64_t channels, const typename Same<Number>::Type *const *residual,
                    Number *const *rows, int64_t count) {
    if (channels < LANES) {
        for (int64_t t = 0; t < count; ++t)
            for (int64_t c = 0; c < channels; ++c)
                put(rows[t] + c, y.data[c * y.stride + t] +
                                     (residual ? get(residual[t] + c) : 0.0f));
        return;
    }
    for (int64_t i = 0; i < vectors_in(channels); ++i) {
        const int64_t c = vector_start(channels, i);
        Vector v[LANES];
        UNROLL for (int j = 0; j < LANES; ++j) v[j] = load(y.data + (c + j) * y.stride);
        transpose(v);
        if (residual) {
            UNROLL for (int t = 0; t < LANES; ++t) {
                if (t < count) store(rows[t] + c, v[t] + load(residual[t] + c));
            }
        } else {
            UNROLL for (int t = 0; t < LANES; ++t) {
                if (t < count) store(rows[t] + c, v[t]);
            }
        }
    }
}

INLINE Vector total(const Vector (&sums)[4]) { return (sums[0] + sums[1]) + (sums[2] + sums[3]); }

// Centre and scale each token over its channels; `to` may be `x`. Weight and bias of the norm are in
// those of the linear layer behind it.
//
// Where channels have a large common value the mean is rounded by more than they differ. So what is
// left of it after centring is taken away in a second step.
static void normalise(Panel x, int64_t channels, float eps, Panel to) {
    const float terms = static_cast<float>(channels);
    for (int64_t half = 0; half < ACROSS; ++half) {
        const float *const data = x.data + half * LANES;
        float *const out = to.data + half * LANES;
        Vector sums[4] = {};
        int64_t c = 0;
        for (; c + 4 <= channels; c += 4)
            UNROLL for (int i = 0; i < 4; ++i) sums[i] += load(data + (c + i) * x.stride);
        for (; c < channels; ++c) sums[0] += load(data + c * x.stride);
        const Vector mean = total(sums) / terms;
        Vector rests[4] = {}, squares[4] = {};
        const auto centre = [&](int64_t channel, int i) {
            const Vector d = load(data + channel * x.stride) - mean;
            store(out + channel * to.stride, d);
            rests[i] += d;
            squares[i] += d * d;
        };
        for (c = 0; c + 4 <= channels; c += 4)
            UNROLL for (int i = 0; i < 4; ++i) centre(c + i, i);
        for (; c < channels; ++c) centre(c, 0);
        const Vector rest = total(rests) / terms;  // exact where all are the same
        // in this order, as a comparison with NaN takes the second
        const Vector variance = greater(Vector{}, total(squares) / terms - rest * rest) + eps;
        Vector factor;
        for (int i = 0; i < LANES; ++i) factor[i] = 1.0f / __builtin_sqrtf(variance[i]);
        for (c = 0; c < channels; ++c) {
            float *const row = out + c * to.stride;
            store(row, (load(row) - rest) * factor);
        }
    }
}

// What a norm does behind `normalise` where no layer follows whose weights could hold it.
static void scale_and_shift(Panel x, int64_t channels, const float *weight, const float *bias) {
    for (int64_t i = 0; i < channels; ++i)
        for (int64_t half = 0; half < PANEL; half += LANES) {
            float *const at = x.data + i * x.stride + half;
            store(at, load(at) * weight[i] + bias[i]);
        }
}

}  // namespace ISA
