// Numbers as products of matrices take them: float32 or, where BFLOAT16 is defined, bfloat16.
//
// A product adds up terms along an index. With bfloat16 the numbers at two adjacent values of that
// index are one unit of 32 bits, the first in the lower half, and one instruction takes both. So the
// same loops do half the steps. Whatever is no product is computed in float32.
#pragma once

#include "vectors.h"

namespace ISA {

struct Panel {  // of activations: feature f of its tokens lies at data + f * stride
    float *data;
    int64_t stride;
};

INLINE float get(const float *from) { return *from; }
INLINE void put(float *to, float number) { *to = number; }

#if defined(BFLOAT16)

constexpr int64_t TERMS = 2;  // of a unit
typedef uint32_t Unit __attribute__((may_alias));
typedef uint16_t Half;  // the upper half of a float's bits
typedef Half Value;
typedef Words Units;
typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));
typedef uint16_t UnalignedHalves __attribute__((vector_size(LANES * 2), aligned(2), may_alias));

struct Terms {  // a panel as products take it: units of features 2 i and 2 i + 1 at data + i * stride
    Unit *data;
    int64_t stride;
};

struct Rows {  // halves of feature f of tokens at data + f * stride
    Half *data;
    int64_t stride;
};

INLINE Units load(const Unit *from) { return *reinterpret_cast<const UnalignedWords *>(from); }
INLINE void store(Unit *to, Units u) { *reinterpret_cast<UnalignedWords *>(to) = u; }
INLINE Units splat(Unit unit) { return unit + Units{}; }
INLINE Vector load(const Half *from) {
    const Halves halves = *reinterpret_cast<const UnalignedHalves *>(from);
    return reinterpret_cast<Vector>(__builtin_convertvector(halves, Words) << 16);
}
INLINE void store(Half *to, Vector v) {
    *reinterpret_cast<UnalignedHalves *>(to) = (Halves)_mm512_cvtneps_pbh((__m512)v);
}
INLINE float get(const Half *from) {
    Half halves[TERMS] = {};
    std::memcpy(halves + 1, from, sizeof *from);
    float number;
    std::memcpy(&number, halves, sizeof number);
    return number;
}
INLINE Half rounded(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<Half>(bits >> 16 | 0x40u);  // NaN
    return static_cast<Half>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

INLINE void put(Half *to, float number) { *to = rounded(number); }

INLINE Vector add_product(Vector sum, Vector a, Vector b) { return sum + a * b; }
INLINE Vector add_product(Vector sum, Units a, Units b) {
    return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}
// Units of numbers at adjacent indices, for each token.
INLINE Units joined(Vector first, Vector second) {
    typedef uint16_t Both __attribute__((vector_size(LANES * 4)));
    const Both both = (Both)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
    const Both order = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return (Units)_mm512_permutexvar_epi16((__m512i)order, (__m512i)both);
}
INLINE Units joined(const Vector *terms) { return joined(terms[0], terms[1]); }
INLINE Unit unit_of(const float *terms, int64_t count) {
    const Unit second = count > 1 ? rounded(terms[1]) : 0;
    return rounded(terms[0]) | second << 16;
}
// Of a row of halves, which may lie anywhere; the last of an odd number of them has no partner.
INLINE Unit unit_at(const Half *row, int64_t index) {
    Unit unit;
    std::memcpy(&unit, row + TERMS * index, sizeof unit);
    return unit;
}
INLINE Unit last_unit(const Half *row) {
    Half half;
    std::memcpy(&half, row, sizeof half);
    return half;
}

#else

constexpr int64_t TERMS = 1;
typedef float Unit;
typedef float Value;
typedef Vector Units;
typedef Panel Terms;
typedef Panel Rows;

INLINE Vector add_product(Vector sum, Vector a, Vector b) { return sum + a * b; }
INLINE Vector joined(const Vector *terms) { return *terms; }
INLINE float unit_of(const float *terms, int64_t) { return *terms; }
INLINE float unit_at(const float *row, int64_t index) { return row[index]; }
INLINE float last_unit(const float *row) { return *row; }

#endif

INLINE int64_t units_of(int64_t terms) { return (terms + TERMS - 1) / TERMS; }

// So many tokens of a panel as products take them that add up features, in the same memory.
static INLINE Terms as_terms(Panel x, int64_t features, int64_t tokens = PANEL) {
#if defined(BFLOAT16)
    Unit *const data = reinterpret_cast<Unit *>(x.data);
    for (int64_t i = 0; i < units_of(features); ++i) {
        const float *const first = x.data + TERMS * i * x.stride;
        const bool alone = TERMS * i + 1 == features;
        for (int64_t t = 0; t < tokens; t += LANES)
            store(data + i * x.stride + t,
                  joined(load(first + t), alone ? Vector{} : load(first + x.stride + t)));
    }
    return {data, x.stride};
#else
    (void)features, (void)tokens;
    return x;
#endif
}

// The same for products that add up tokens.
static INLINE Rows as_rows(Panel x, int64_t features, int64_t tokens) {
#if defined(BFLOAT16)
    for (int64_t f = 0; f < features; ++f) {
        const float *const row = x.data + f * x.stride;
        Half *const to = reinterpret_cast<Half *>(x.data + f * x.stride);
        for (int64_t t = 0; t < tokens; t += LANES) store(to + t, load(row + t));
    }
    return {reinterpret_cast<Half *>(x.data), 2 * x.stride};
#else
    (void)features, (void)tokens;
    return x;
#endif
}

}  // namespace ISA
