// A depthwise convolution with the GELU behind it: vectors hold channels, as maps do.
#pragma once

#include "parallel.h"
#include "tokens.h"

namespace ISA {

template <typename Channels>  // Vector, or float where there are fewer channels than LANES
struct DepthwiseSegment {
    static constexpr int PIXELS = 8;  // side by side, so that no sum waits for the one before

    static INLINE Channels take(const float *from) {
        Channels v;
        std::memcpy(&v, from, sizeof v);
        return v;
    }
    static INLINE Channels gelu_of(Channels v) {
        if constexpr (sizeof v == sizeof(float)) {
            return gelu(splat(v))[0];
        } else {
            return gelu(v);
        }
    }

    // Pixels from `column` on, from channel `channel` on. Outside of the map lie zeros.
    template <bool INSIDE>
    static void run(const RestoreDepthwise &c, const float *image, int64_t row, int64_t column,
                    int64_t channel, const float *zeros, float *out) {
        const int64_t up = c.kernel_height / 2, left = c.kernel_width / 2;
        Channels sums[PIXELS];
        UNROLL for (int i = 0; i < PIXELS; ++i)
            sums[i] = c.bias ? take(c.bias + channel) : Channels{};
        for (int64_t dy = 0; dy < c.kernel_height; ++dy) {
            const int64_t y = row + dy - up;
            if (y < 0 || y >= c.height) continue;
            const float *const line = image + y * c.width * c.channels + channel;
            const float *weight = c.weight + dy * c.kernel_width * c.channels + channel;
            for (int64_t dx = 0; dx < c.kernel_width; ++dx) {
                const Channels w = take(weight);
                const int64_t x = column + dx - left;
                UNROLL for (int i = 0; i < PIXELS; ++i) {
                    const bool there = INSIDE || (x + i >= 0 && x + i < c.width);
                    sums[i] += w * take(there ? line + (x + i) * c.channels : zeros);
                }
                weight += c.channels;
            }
        }
        const int64_t first = (row * c.width + column) * c.channels + channel;
        UNROLL for (int i = 0; i < PIXELS; ++i) {
            if (!INSIDE && column + i >= c.width) break;
            const int64_t at = first + i * c.channels;
            Channels y = gelu_of(sums[i]);
            if (c.residual) y += take(image + at);
            std::memcpy(out + at, &y, sizeof y);
        }
    }
};

struct DepthwiseWork {
    const RestoreDepthwise *call;

    static int64_t scratch() { return LANES; }

    static void run(const void *self, int64_t item, float *scratch) {
        static_cast<const DepthwiseWork *>(self)->run(item, scratch);
    }

    // An item is a row of an image.
    void run(int64_t item, float *zeros) const {
        const RestoreDepthwise &c = *call;
        for (int64_t i = 0; i < LANES; ++i) zeros[i] = 0.0f;
        const int64_t size = c.height * c.width * c.channels;
        const float *const image = c.x + item / c.height * size;
        float *const out = c.out + item / c.height * size;
        const int64_t row = item % c.height;
        if (c.channels < LANES) {
            for (int64_t i = 0; i < c.channels; ++i) along<float>(image, row, i, zeros, out);
        } else {
            for (int64_t i = 0; i < vectors_in(c.channels); ++i)
                along<Vector>(image, row, vector_start(c.channels, i), zeros, out);
        }
    }

    template <typename Channels>
    void along(const float *image, int64_t row, int64_t channel, const float *zeros,
               float *out) const {
        typedef DepthwiseSegment<Channels> Segment;
        const RestoreDepthwise &c = *call;
        const int64_t left = c.kernel_width / 2;
        for (int64_t x = 0; x < c.width; x += Segment::PIXELS) {
            if (x >= left && x + Segment::PIXELS + left <= c.width) {
                Segment::template run<true>(c, image, row, x, channel, zeros, out);
            } else {
                Segment::template run<false>(c, image, row, x, channel, zeros, out);
            }
        }
    }
};

static int64_t depthwise(const RestoreDepthwise *call, int64_t threads) {
    const DepthwiseWork work{call};
    return !restore_native::run_in_parallel(threads, call->images * call->height, work.scratch(),
                                            DepthwiseWork::run, &work);
}

}  // namespace ISA
