// The ops for AVX-512, whatever the compiler was told to build for.
#include "operation_table.h"
#include "parallel.h"

#if defined(__x86_64__)

#include "intrinsics.h"

#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif

#define LANES 16
#define ISA avx512
#include "exact_operations.h"

namespace restore_native {
const Operations *const AVX512 = &operations;
}  // namespace restore_native

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
const restore_native::Operations *const restore_native::AVX512 = nullptr;
#endif
