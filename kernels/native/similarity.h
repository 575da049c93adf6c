// The structural similarity of two planes of float64, row by row; see restore/metrics/similarity.py.
#pragma once

#include "restore_native.h"
#include "vectors.h"

namespace ISA {

typedef double Doubles __attribute__((vector_size(LANES * 4)));

constexpr int64_t TAPS = 11;   // of the window
constexpr int64_t MEANS = 4;   // of s, d, s^2 + d^2 and s^2 - d^2

template <typename Number>  // Doubles, or double at the end of a row
struct SimilarityColumns {
    const RestoreSimilarity &c;
    double *const rows;   // [TAPS, MEANS, columns], each at its row's number modulo TAPS
    double *const means;  // [MEANS, columns], along the rows

    static INLINE Number take(const double *from) {
        Number v;
        std::memcpy(&v, from, sizeof v);
        return v;
    }
    static INLINE void put(double *to, Number v) { std::memcpy(to, &v, sizeof v); }

    INLINE void read(int64_t row, int64_t column) const {
        const Number x = take(c.x + row * c.columns + column);
        const Number y = take(c.y + row * c.columns + column);
        const Number s = x + y, d = x - y;
        // the window's weights add up to 1: the constants can be added before the mean
        const Number s_squared = s * s + (c.c1 + c.c2), d_squared = d * d;
        const Number kinds[MEANS] = {s, d, s_squared + d_squared, s_squared - d_squared};
        double *const to = rows + row % TAPS * MEANS * c.columns + column;
        UNROLL for (int64_t kind = 0; kind < MEANS; ++kind) put(to + kind * c.columns, kinds[kind]);
    }

    // of the rows up to `row`
    INLINE void mean_down(int64_t row, int64_t column) const {
        Number sums[MEANS] = {};
        for (int64_t t = 0; t < TAPS; ++t) {
            const double *const from = rows + (row + 1 + t) % TAPS * MEANS * c.columns + column;
            UNROLL for (int64_t kind = 0; kind < MEANS; ++kind)
                sums[kind] += c.window[t] * take(from + kind * c.columns);
        }
        UNROLL for (int64_t kind = 0; kind < MEANS; ++kind)
            put(means + kind * c.columns + column, sums[kind]);
    }

    INLINE Number ratio(int64_t column) const {
        Number sums[MEANS] = {};
        UNROLL for (int64_t t = 0; t < TAPS; ++t)
            UNROLL for (int64_t kind = 0; kind < MEANS; ++kind)
                sums[kind] += c.window[t] * take(means + kind * c.columns + column + t);
        const Number s_squared = sums[0] * sums[0] + c.c1, d_squared = sums[1] * sums[1];
        const Number u = s_squared - d_squared, v = s_squared + d_squared;
        return u * (sums[3] - u) / (v * (sums[2] - v));
    }
};

static double similarity(const RestoreSimilarity *call) {
    const RestoreSimilarity &c = *call;
    constexpr int64_t STEP = LANES / 2;
    const int64_t places = c.columns - TAPS + 1;
    double *const means = c.scratch + TAPS * MEANS * c.columns;
    const SimilarityColumns<Doubles> many{c, c.scratch, means};
    const SimilarityColumns<double> one{c, c.scratch, means};
    Doubles sums{};
    double sum = 0;
    for (int64_t row = 0; row < c.rows; ++row) {
        int64_t column = 0;
        for (; column + STEP <= c.columns; column += STEP) many.read(row, column);
        for (; column < c.columns; ++column) one.read(row, column);
        if (row < TAPS - 1) continue;
        for (column = 0; column + STEP <= c.columns; column += STEP) many.mean_down(row, column);
        for (; column < c.columns; ++column) one.mean_down(row, column);
        for (column = 0; column + STEP <= places; column += STEP) sums += many.ratio(column);
        for (; column < places; ++column) sum += one.ratio(column);
    }
    for (int64_t lane = 0; lane < STEP; ++lane) sum += sums[lane];
    return sum;
}

}  // namespace ISA
