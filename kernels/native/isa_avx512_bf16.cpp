// The ops for AVX-512 with products in bfloat16, whatever the compiler was told to build for.
#include "operation_table.h"
#include "parallel.h"

#if defined(RESTORE_KNOWS_BF16)

#include "intrinsics.h"

#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), \
    apply_to = function)
#else
#pragma GCC target( \
    "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif

#define LANES 16
#define BFLOAT16
#define ISA avx512_bf16
#include "operations.h"
#include "correlation.h"
#include "gated.h"

namespace restore_native {
static const Operations operations{avx512_bf16::PANEL,  avx512_bf16::pack,
                                   avx512_bf16::digest, avx512_bf16::branch,
                                   avx512_bf16::attention, avx512_bf16::tokens,
                                   avx512_bf16::gated, avx512_bf16::correlation,
                                   avx512_bf16::conv_mlp};
const Operations *const AVX512_BF16 = &operations;
}  // namespace restore_native

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
const restore_native::Operations *const restore_native::AVX512_BF16 = nullptr;
#endif
