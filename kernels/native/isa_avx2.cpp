// The ops for AVX2 with FMA, whatever the compiler was told to build for.
#include "operation_table.h"
#include "parallel.h"

#if defined(__x86_64__)

#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define LANES 8
#define ISA avx2
#include "operations.h"
#include "attention_gradients.h"
#include "depthwise.h"
#include "dictionary.h"
#include "groups.h"

namespace restore_native {
static const Operations operations{avx2::PANEL, avx2::pack, avx2::digest, avx2::branch, avx2::attention,
                                   avx2::tokens, avx2::groups, avx2::dictionary,
                                   avx2::refinement, avx2::depthwise,
                                   avx2::attention_gradients};
const Operations *const AVX2 = &operations;
}  // namespace restore_native

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
const restore_native::Operations *const restore_native::AVX2 = nullptr;
#endif
