// The ops for AVX-512, whatever the compiler was told to build for.
#include "operation_table.h"
#include "parallel.h"

#if defined(__x86_64__)

// GCC 12 finds fault with its own vectors whose values do not matter
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif

#define LANES 16
#define ISA avx512
#include "operations.h"
#include "attention_gradients.h"
#include "depthwise.h"
#include "dictionary.h"
#include "groups.h"

namespace restore_native {
static const Operations operations{avx512::PANEL, avx512::pack, avx512::digest, avx512::branch, avx512::attention,
                                   avx512::tokens, avx512::groups, avx512::dictionary,
                                   avx512::refinement, avx512::depthwise,
                                   avx512::attention_gradients};
const Operations *const AVX512 = &operations;
}  // namespace restore_native

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
const restore_native::Operations *const restore_native::AVX512 = nullptr;
#endif
