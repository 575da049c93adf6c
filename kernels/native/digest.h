// Whether numbers are still the same, at the speed of reading them.
#pragma once

#include "vectors.h"

namespace ISA {

// Both steps of every word are turned: products of odd numbers alone carry upwards only, so that
// changes of many words' highest bits, as of their signs, would cancel out.
INLINE Words turned(Words words, int by) { return words << by | words >> (32 - by); }

static uint64_t digest(const float *data, int64_t count) {
    constexpr int64_t STEP = 4 * LANES;  // several sums, so that none waits for the one before
    Words sums[4];
    for (uint32_t j = 0; j < 4; ++j) sums[j] = Words{} + (j + 1) * 0x9e3779b9u;
    int64_t i = 0;
    for (; i + STEP <= count; i += STEP)
        UNROLL for (int j = 0; j < 4; ++j) {
            const Words words = *reinterpret_cast<const UnalignedWords *>(data + i + j * LANES);
            sums[j] ^= turned(words * 0x85ebca6bu, 15) * 0xc2b2ae35u;
            sums[j] = turned(sums[j], 13) * 5u + 0x9e3779b9u;
        }
    uint64_t result = static_cast<uint64_t>(count);
    const auto add = [&result](uint32_t word) {
        result = (result ^ word) * 0x9e3779b97f4a7c15u;
        result ^= result >> 32;
    };
    for (const Words &sum : sums)
        for (int lane = 0; lane < LANES; ++lane) add(sum[lane]);
    for (; i < count; ++i) {
        uint32_t word;
        std::memcpy(&word, data + i, sizeof word);
        add(word);
    }
    return result;
}

}  // namespace ISA
