// The ops of one instruction set, as the C interface finds them.
#pragma once

#include "restore_native.h"

#if defined(__x86_64__) && defined(__has_include)
#if __has_include(<avx512bf16intrin.h>)
#define RESTORE_KNOWS_BF16
#endif
#endif

namespace restore_native {

struct Operations {
    int64_t panel;
    void (*pack)(const float *, int64_t, int64_t, float *);
    uint64_t (*digest)(const float *, int64_t);
    int64_t (*branch)(const RestoreBranch *, int64_t);
    int64_t (*attention)(const RestoreAttention *, int64_t);
    int64_t (*tokens)(const RestoreTokens *, int64_t);
    int64_t (*gated)(const RestoreGated *, int64_t);
    int64_t (*correlation)(const RestoreCorrelation *, int64_t);
    int64_t (*conv_mlp)(const RestoreConvMlp *, int64_t);
    // these compute in float32, so sets of bfloat16 have none
    int64_t (*groups)(const RestoreGroups *, int64_t) = nullptr;
    int64_t (*dictionary)(const RestoreDictionary *, int64_t) = nullptr;
    int64_t (*refinement)(const RestoreRefinement *, int64_t) = nullptr;
    int64_t (*depthwise)(const RestoreDepthwise *, int64_t) = nullptr;
    int64_t (*attention_gradients)(const RestoreAttentionGradients *, int64_t) = nullptr;
    double (*similarity)(const RestoreSimilarity *) = nullptr;
};

// Null where this build is for another kind of CPU.
extern const Operations *const PORTABLE;
extern const Operations *const AVX2;
extern const Operations *const AVX512;
extern const Operations *const AVX512_BF16;

}  // namespace restore_native
