// Whether numbers are still the same, at the speed of reading them.
#pragma once

#include "vectors.h"

namespace ISA {

// Every lane is a polynomial of the words that it sees, in a factor that is odd: a change of one
// word always changes it.
static uint64_t digest(const float *data, int64_t count) {
    constexpr uint32_t FACTOR = 2654435761u;
    constexpr int64_t STEP = 4 * LANES;  // several sums, so that none waits for a product
    Words sums[4] = {};
    int64_t i = 0;
    for (; i + STEP <= count; i += STEP)
        UNROLL for (int j = 0; j < 4; ++j)
            sums[j] = sums[j] * FACTOR +
                      *reinterpret_cast<const UnalignedWords *>(data + i + j * LANES);
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
