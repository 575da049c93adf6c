// The C interface: picks the ops of an instruction set.
#include "operation_table.h"

using restore_native::Operations;

namespace {

const Operations *operations_of(int64_t isa) {
    const Operations *const all[] = {restore_native::PORTABLE, restore_native::AVX2,
                                     restore_native::AVX512, restore_native::AVX512_BF16};
    return all[isa];
}

// The same set without products in bfloat16, for ops that have none.
const Operations *exact_of(int64_t isa) { return operations_of(isa == 3 ? 2 : isa); }

}  // namespace

int64_t restore_abi(void) { return RESTORE_ABI; }

int64_t restore_has_isa(int64_t isa) {
    if (isa < 0 || isa > 3 || !operations_of(isa)) return 0;
#if defined(__x86_64__)
    if (isa == 1) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#if defined(RESTORE_KNOWS_BF16)
    if (isa == 3 && !__builtin_cpu_supports("avx512bf16")) return 0;
#endif
    if (isa >= 2)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("fma");
#endif
    return 1;
}

int64_t restore_best_isa(void) {
    int64_t isa = 2;
    while (!restore_has_isa(isa)) --isa;
    return isa;
}

int64_t restore_panel(int64_t isa) { return operations_of(isa)->panel; }

void restore_pack(int64_t isa, const float *weight, int64_t outputs, int64_t inputs,
                  float *packed) {
    operations_of(isa)->pack(weight, outputs, inputs, packed);
}

uint64_t restore_digest(int64_t isa, int64_t arrays, const float *const *data,
                        const int64_t *counts) {
    uint64_t all = 0;
    for (int64_t i = 0; i < arrays; ++i)
        all = (all ^ operations_of(isa)->digest(data[i], counts[i])) * 0x9e3779b97f4a7c15u + 1;
    return all;
}

int64_t restore_branch(int64_t isa, const RestoreBranch *call, int64_t threads) {
    return operations_of(isa)->branch(call, threads);
}

int64_t restore_attention(int64_t isa, const RestoreAttention *call, int64_t threads) {
    return operations_of(isa)->attention(call, threads);
}

int64_t restore_tokens(int64_t isa, const RestoreTokens *call, int64_t threads) {
    return operations_of(isa)->tokens(call, threads);
}

int64_t restore_gated(int64_t isa, const RestoreGated *call, int64_t threads) {
    return operations_of(isa)->gated(call, threads);
}

int64_t restore_correlation(int64_t isa, const RestoreCorrelation *call, int64_t threads) {
    return operations_of(isa)->correlation(call, threads);
}

int64_t restore_conv_mlp(int64_t isa, const RestoreConvMlp *call, int64_t threads) {
    return operations_of(isa)->conv_mlp(call, threads);
}

int64_t restore_groups(int64_t isa, const RestoreGroups *call, int64_t threads) {
    return exact_of(isa)->groups(call, threads);
}

int64_t restore_dictionary(int64_t isa, const RestoreDictionary *call, int64_t threads) {
    return exact_of(isa)->dictionary(call, threads);
}

int64_t restore_refinement(int64_t isa, const RestoreRefinement *call, int64_t threads) {
    return exact_of(isa)->refinement(call, threads);
}

int64_t restore_depthwise(int64_t isa, const RestoreDepthwise *call, int64_t threads) {
    return exact_of(isa)->depthwise(call, threads);
}

int64_t restore_attention_gradients(int64_t isa, const RestoreAttentionGradients *call,
                                    int64_t threads) {
    return exact_of(isa)->attention_gradients(call, threads);
}

double restore_similarity(int64_t isa, const RestoreSimilarity *call) {
    return exact_of(isa)->similarity(call);
}
