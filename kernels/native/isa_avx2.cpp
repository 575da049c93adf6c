// The ops for AVX2 with FMA, whatever the compiler was told to build for.
#include "operation_table.h"
#include "parallel.h"

#if defined(__x86_64__)

#include "intrinsics.h"

#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define LANES 8
#define ISA avx2
#include "exact_operations.h"

namespace restore_native {
const Operations *const AVX2 = &operations;
}  // namespace restore_native

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
const restore_native::Operations *const restore_native::AVX2 = nullptr;
#endif
