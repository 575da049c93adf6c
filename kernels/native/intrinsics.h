// The intrinsics of x86-64.
#pragma once

#if defined(__clang__)
#include <immintrin.h>
#else
// GCC 12 finds fault with its own vectors whose values do not matter
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif
