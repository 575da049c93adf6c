// Vectors of LANES floats and arithmetic on them, once for all instruction sets.
//
// Included by one file for each set, which defines LANES and ISA, the namespace that keeps its code
// from being mixed up with that of other sets by the linker.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#include "normal_table.h"

#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 12  // have it by another name alone
#define __builtin_shufflevector(a, b, ...) __builtin_shuffle(a, b, Integers{__VA_ARGS__})
#endif

namespace ISA {

typedef float Vector __attribute__((vector_size(LANES * 4)));
typedef int32_t Integers __attribute__((vector_size(LANES * 4)));
typedef uint32_t Words __attribute__((vector_size(LANES * 4)));
typedef uint32_t UnalignedWords __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef float Unaligned __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t UnalignedIntegers __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

constexpr int64_t ACROSS = 2;               // vectors of tokens that a tile holds side by side
constexpr int64_t PANEL = ACROSS * LANES;   // tokens
constexpr float LOG2_E = 1.44269504088896341f;

INLINE Vector load(const float *from) { return *reinterpret_cast<const Unaligned *>(from); }
INLINE void store(float *to, Vector v) { *reinterpret_cast<Unaligned *>(to) = v; }
INLINE Integers load(const int32_t *from) {
    return *reinterpret_cast<const UnalignedIntegers *>(from);
}
// value - 0, which compilers drop; value + 0 would be computed, as it turns -0 into 0
INLINE Vector splat(float value) { return value - Vector{}; }

// The second where one is NaN. GCC makes a comparison and a choice of a > b ? a : b.
#if LANES == 16
INLINE Vector greater(Vector a, Vector b) { return (Vector)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE Vector lesser(Vector a, Vector b) { return (Vector)_mm512_min_ps((__m512)a, (__m512)b); }
#elif LANES == 8
INLINE Vector greater(Vector a, Vector b) { return (Vector)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE Vector lesser(Vector a, Vector b) { return (Vector)_mm256_min_ps((__m256)a, (__m256)b); }
#else
INLINE Vector greater(Vector a, Vector b) { return a > b ? a : b; }
INLINE Vector lesser(Vector a, Vector b) { return a < b ? a : b; }
#endif

// 2^f for f from -0.5 to 0.5: minimax of the relative error there, 1.9e-9.
INLINE Vector exp2_near_zero(Vector f) {
    Vector p = splat(0.0001534581242594868f);
    p = p * f + 0.0013399930903688073f;
    p = p * f + 0.009618489071726799f;
    p = p * f + 0.05550328642129898f;
    p = p * f + 0.24022646248340607f;
    p = p * f + 0.6931471824645996f;
    return p * f + 1.0f;
}

// 2^x for x <= 0 to about one unit in the last place; as good as 0 from x = -126 on, NaN for NaN.
INLINE Vector exp2_below_zero(Vector x) {
#if LANES == 16
    // what is left of x beside the nearest integer: 0 where x is infinite
    const Vector f = (Vector)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT);
    return (Vector)_mm512_scalef_ps((__m512)exp2_near_zero(f), (__m512)(x - f));
#else
    x = greater(splat(-126.0f), x);  // in this order, as a comparison with NaN takes the second
    // adding 1.5 * 2^23 leaves the nearest integer in the lowest bits
    const Vector magic = splat(12582912.0f);
    const Vector rounded = x + magic;
    const Vector p = exp2_near_zero(x - (rounded - magic));
    const Words exponent = reinterpret_cast<Words>(rounded) << 23;
    return reinterpret_cast<Vector>(reinterpret_cast<Words>(p) + exponent);
#endif
}

// x (1 + erf(x / sqrt 2)) / 2. The share (1 + erf) / 2 is exact to 1.1e-7, and 0 or 1 beyond 5.4.
#if LANES == 16
INLINE Vector gelu(Vector x) {
    typedef restore_native::NormalTable Table;
    constexpr float SCALE = Table::PIECES / Table::EDGE;
    const __m512 magic = _mm512_set1_ps(12582912.0f);  // as in exp2_below_zero
    const __m512 size = _mm512_abs_ps((__m512)x);
    // in this order, as a comparison with NaN takes the second
    const __m512 inside = _mm512_min_ps(_mm512_set1_ps((Table::PIECES + 0.5f) / SCALE), size);
    const __m512 at = _mm512_fmsub_ps(inside, _mm512_set1_ps(SCALE), _mm512_set1_ps(0.5f));
    const __m512 rounded = _mm512_add_ps(at, magic);
    const __m512i piece = _mm512_castps_si512(rounded);  // its lowest bits count
    const __m512 f = _mm512_sub_ps(at, _mm512_sub_ps(rounded, magic));  // -0.5 to 0.5
    __m512 p = _mm512_setzero_ps();
    UNROLL for (int i = Table::DEGREE; i >= 0; --i) {
        const float *row = restore_native::NORMAL_TABLE.factors[i];
        const __m512 factor =
            _mm512_permutex2var_ps(_mm512_load_ps(row), piece, _mm512_load_ps(row + 16));
        p = i == Table::DEGREE ? factor : _mm512_fmadd_ps(p, f, factor);
    }
    return (Vector)_mm512_fmadd_ps(size, p, _mm512_mul_ps((__m512)x, _mm512_set1_ps(0.5f)));
}
#else
INLINE Vector gelu(Vector x) {
    const Vector edge = splat(5.4f);
    const Vector z = lesser(greater(x, -edge), edge);
    const Vector t = z * z * (2.0f / (5.4f * 5.4f)) - 1.0f;
    // share - 1/2 = z * p(z^2); in t, which runs from -1 to 1, rounding does not add up
    Vector p = splat(0.00039285901584662497f);
    p = p * t - 0.0010283689480274916f;
    p = p * t + 0.0008749329135753214f;
    p = p * t - 0.0011864100815728307f;
    p = p * t + 0.003658923553302884f;
    p = p * t - 0.0067153386771678925f;
    p = p * t + 0.009651195257902145f;
    p = p * t - 0.013963320292532444f;
    p = p * t + 0.019645145162940025f;
    p = p * t - 0.025746457278728485f;
    p = p * t + 0.0321165956556797f;
    p = p * t - 0.039206814020872116f;
    p = p * t + 0.048499591648578644f;
    p = p * t - 0.06532805413007736f;
    p = p * t + 0.13092811405658722f;
    const Vector share = z * p + 0.5f;
    const Vector settled = x <= -edge ? Vector{} : share;
    return x * (x >= edge ? splat(1.0f) : settled);
}
#endif

// Turn rows into columns: v[i][j] becomes v[j][i].
#if LANES == 16
INLINE void transpose(Vector (&v)[16]) {
    Vector w[16];
    UNROLL for (int i = 0; i < 16; i += 2) {  // pairs of rows, in each quarter
        w[i] = __builtin_shufflevector(
            v[i], v[i + 1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
        w[i + 1] = __builtin_shufflevector(
            v[i], v[i + 1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    }
    UNROLL for (int i = 0; i < 16; i += 4) {  // fours of rows, in each quarter
        UNROLL for (int j = 0; j < 2; ++j) {
            v[i + 2 * j] = __builtin_shufflevector(
                w[i + j], w[i + j + 2], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
            v[i + 2 * j + 1] = __builtin_shufflevector(
                w[i + j], w[i + j + 2], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
        }
    }
    UNROLL for (int i = 0; i < 4; ++i) {  // quarters of rows 0, 4, 8 and 12
        const Vector a = v[i], b = v[i + 4], c = v[i + 8], d = v[i + 12];
        const Vector ab0 = __builtin_shufflevector(
            a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        const Vector ab1 = __builtin_shufflevector(
            a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
        const Vector cd0 = __builtin_shufflevector(
            c, d, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        const Vector cd1 = __builtin_shufflevector(
            c, d, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
        w[i] = __builtin_shufflevector(
            ab0, cd0, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        w[i + 8] = __builtin_shufflevector(
            ab0, cd0, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
        w[i + 4] = __builtin_shufflevector(
            ab1, cd1, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        w[i + 12] = __builtin_shufflevector(
            ab1, cd1, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    }
    UNROLL for (int i = 0; i < 16; ++i) v[i] = w[i];
}
#elif LANES == 8
INLINE void transpose(Vector (&v)[8]) {
    Vector w[8];
    UNROLL for (int i = 0; i < 8; i += 2) {
        w[i] = __builtin_shufflevector(v[i], v[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        w[i + 1] = __builtin_shufflevector(v[i], v[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    UNROLL for (int i = 0; i < 8; i += 4) {
        UNROLL for (int j = 0; j < 2; ++j) {
            v[i + 2 * j] = __builtin_shufflevector(w[i + j], w[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            v[i + 2 * j + 1] =
                __builtin_shufflevector(w[i + j], w[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    }
    UNROLL for (int i = 0; i < 4; ++i) {
        const Vector a = v[i], b = v[i + 4];
        v[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11);
        v[i + 4] = __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
    }
}
#else
INLINE void transpose(Vector (&v)[4]) {
    const Vector a = __builtin_shufflevector(v[0], v[1], 0, 4, 1, 5);
    const Vector b = __builtin_shufflevector(v[0], v[1], 2, 6, 3, 7);
    const Vector c = __builtin_shufflevector(v[2], v[3], 0, 4, 1, 5);
    const Vector d = __builtin_shufflevector(v[2], v[3], 2, 6, 3, 7);
    v[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
    v[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
    v[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
    v[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
}
#endif

}  // namespace ISA
