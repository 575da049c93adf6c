// The normal distribution from 0 on, as polynomials of short pieces.
#pragma once

namespace restore_native {

struct NormalTable {
    static constexpr int PIECES = 31;  // and one where all that is left is lost in rounding
    static constexpr int DEGREE = 4;
    static constexpr float EDGE = 5.4f;

    // erf(x / sqrt 2) / 2 at x = EDGE (i + 1/2 + f) / PIECES is the sum of factors[k][i] f^k, for f
    // from -0.5 to 0.5, to 1e-8; 1/2 beyond the edge
    alignas(64) float factors[DEGREE + 1][PIECES + 1] = {};

    constexpr NormalTable() {
        constexpr double WIDTH = static_cast<double>(EDGE) / PIECES;
        double below = 0.0;  // erf / 2 where a piece begins
        for (int i = 0; i < PIECES; ++i) {
            double terms[TERMS] = {};
            expand((i + 0.5) * WIDTH, WIDTH, terms);
            // it is 0 at 0, and pieces join
            terms[0] = below - sum(terms, -0.5);
            below = terms[0] + sum(terms, 0.5);
            // on that interval f^6 and f^5 are nearly sums of lower powers (of Chebyshev)
            terms[4] += terms[6] * 3.0 / 8.0;
            terms[2] -= terms[6] * 9.0 / 256.0;
            terms[0] += terms[6] / 2048.0;
            terms[3] += terms[5] * 5.0 / 16.0;
            terms[1] -= terms[5] * 5.0 / 256.0;
            for (int k = 0; k <= DEGREE; ++k) factors[k][i] = static_cast<float>(terms[k]);
        }
        factors[0][PIECES] = 0.5f;
    }

  private:
    static constexpr int TERMS = 12;

    // Taylor's terms of the integral of exp(-x^2 / 2) / sqrt(2 pi) around x, but the constant one
    static constexpr void expand(double x, double width, double (&terms)[TERMS]) {
        // of the density, of which the one of order n + 1 is -x times that of n less n of n - 1
        double derivatives[TERMS] = {density(x), -x * density(x)};
        for (int n = 1; n + 1 < TERMS; ++n)
            derivatives[n + 1] = -x * derivatives[n] - n * derivatives[n - 1];
        double power = 1.0;
        for (int k = 1; k < TERMS; ++k) {
            power *= width / k;
            terms[k] = derivatives[k - 1] * power;
        }
    }

    static constexpr double sum(const double (&terms)[TERMS], double f) {
        double result = 0.0;
        for (int k = TERMS - 1; k > 0; --k) result = (result + terms[k]) * f;
        return result;
    }

    static constexpr double density(double x) {
        double growth = 1.0, term = 1.0;  // exp(x^2 / 2)
        for (int n = 1; n < 80; ++n) growth += term *= x * x / 2.0 / n;
        return 0.3989422804014327 / growth;
    }
};

alignas(64) constexpr NormalTable NORMAL_TABLE;

}  // namespace restore_native
