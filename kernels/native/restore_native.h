/* The C interface of the native kernels: for CPUs in float32 and bfloat16.
 *
 * Nothing is kept between calls. All lengths and strides count numbers, not bytes. Maps are
 * [B, H, W, C] with adjacent channels and any other strides. Pointers are to floats unless said.
 * Every function returns 0, or 1 where memory for its work could not be had.
 *
 * The sets that multiply bfloat16 round what goes into products of matrices to it, and add up and
 * compute everything else in float32. Maps may hold either for them, and floats alone for others.
 */
#pragma once

#include <stdint.h>

#if defined(_WIN32)
#define RESTORE_API __declspec(dllexport)
#else
#define RESTORE_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised with every change of what follows, so that a stale build is refused, not misread. */
#define RESTORE_ABI 9

/* Hidden channels that `restore_conv_mlp` convolves before they are narrowed. */
#define RESTORE_BLOCK 256

typedef struct {
    void *data;
    int64_t image, row, column; /* strides */
    int64_t half;               /* whether its numbers are bfloat16 */
} RestoreMap;

/* y = W x + b for W in the layout of `restore_pack`, out of `outputs` by `inputs`. */
typedef struct {
    const float *packed;
    const float *bias; /* [outputs]; with per_token [outputs, tokens padded to a panel] */
    int64_t outputs, inputs;
    int64_t per_token; /* whether each token of a window has its own bias */
} RestoreLinear;

/* Which pixels of a map a window holds, in an order of its own. */
typedef struct {
    int64_t tokens;
    const int32_t *y, *x;    /* [tokens]: place in the window; with a halo also outside of it */
    int64_t rows, columns;   /* from one window to the next */
    int64_t shift_y, shift_x; /* by which the map is rolled up and left */
    int64_t halo;            /* whether places outside of the map hold 0, instead of being rolled */
    const int32_t *labels;   /* [4, label_stride]: piece of the image in windows inside, in the
                                last column, in the last row, in both; NULL without a shift */
    int64_t label_stride;    /* at least the tokens padded to a panel */
} RestoreGrid;

/* Windows, and how their queries see their keys. */
typedef struct {
    RestoreGrid query, key;
    const float *bias;       /* [heads, bias_stride], times log2 e */
    int64_t bias_stride;
    const int32_t *key_at;   /* [tokens]: bias of key b and query a is bias[key_at[b] + a], and is
                                memory also for queries up to the next whole panel */
} RestoreWindows;

/* Queries, keys and values of the same windows, from one map; then an MLP, if there is one, with a
   norm before it. */
typedef struct {
    RestoreMap x, residual, out; /* residual.data may be NULL; else it holds numbers as out does */
    int64_t images, height, width, channels, heads;
    int64_t each;                /* channels of a head out of qkv: even with bfloat16 */
    RestoreWindows windows;
    RestoreLinear qkv, proj;     /* queries come out of qkv times scale * log2 e; with bfloat16
                                    values are packed apart from what is before them */
    RestoreLinear widen, narrow; /* of the MLP, added to what it is of, which is the attention's plus
                                    x, whatever residual says, behind two norms; widen.packed may be
                                    NULL */
    int64_t normalise;           /* whether tokens are centred and scaled first */
    float eps, mlp_eps;
} RestoreBranch;

/* Attention alone; queries, keys and values of a head lie at head * channels / heads. */
typedef struct {
    RestoreMap query, key, value, out;
    int64_t images, height, width, channels, heads; /* height and width of query and out */
    RestoreWindows windows;
    const int64_t *chosen;       /* [count] windows to compute, or NULL for all */
    int64_t count;
    float scale;                 /* of the products, times log2 e */
} RestoreAttention;

/* From the gradient of attention's result to those of what it was computed from. No key may lie in
   two windows. */
typedef struct {
    RestoreAttention attention;  /* as it was computed; out is the gradient of its result */
    RestoreMap query, key, value; /* gradients, of the windows that were computed */
    float *bias;                 /* [parts, heads, bias_stride], added to: gradients in logits, to
                                    base e */
    int64_t parts;               /* of the windows, at least 1 */
} RestoreAttentionGradients;

/* Tokens [count, channels], each at its stride; see `tokens.h` for the order of what is done. */
typedef struct {
    const void *x;
    const void *residual;        /* [count, outputs of the last layer], or NULL */
    void *out;
    int64_t count, channels;
    int64_t x_stride, residual_stride, out_stride;
    int64_t x_half, out_half;    /* whether numbers are bfloat16; those of residual as of out */
    RestoreLinear first, second; /* second.packed may be NULL; first.packed too, where there is but
                                    a norm: then its outputs are the channels */
    int64_t normalise, gelu;     /* gelu: behind the first layer */
    float eps;
    const float *norm_weight, *norm_bias; /* [channels], without a layer */
} RestoreTokens;

/* Attention inside groups of `size` tokens each, which follow each other in `order`. The row of
   tokens is filled up to whole groups by its own end reversed. */
typedef struct {
    const float *qkv;            /* [images, tokens, 3 channels]; heads lie side by side in queries,
                                    keys and values */
    float *out;                  /* [images, tokens, channels] */
    const int64_t *order;        /* [images, tokens], each token of an image once */
    int64_t images, tokens, channels, heads;
    int64_t size;                /* 1 to tokens */
    float scale;                 /* of the products, times log2 e */
} RestoreGroups;

/* Attention from tokens to the entries of their image's dictionary by cosines. */
typedef struct {
    const float *query;          /* [images, tokens, compared] */
    const float *key;            /* [images, compared, entries], of length 1 times the sharpness of
                                    the entry times log2 e */
    const float *value;          /* [images, entries, channels] */
    float *similarity;           /* [images, tokens, entries] */
    float *out;                  /* [images, tokens, channels] */
    int64_t images, tokens, entries, compared, channels;
} RestoreDictionary;

/* A dictionary moved towards tokens; see `refine_dictionary`. */
typedef struct {
    const float *similarity;     /* [images, tokens, entries] */
    const float *x;              /* [images, tokens, channels] */
    const float *dictionary;     /* [images, entries, channels] */
    const float *weight, *bias, *sigma; /* [entries] */
    float *out;                  /* [images, entries, channels] */
    int64_t images, tokens, entries, channels;
    float eps;
} RestoreRefinement;

/* gelu(depthwise convolution) of maps, and the maps added to it. */
typedef struct {
    const float *x;              /* [images, height, width, channels] */
    float *out;
    const float *weight;         /* [kernel_height, kernel_width, channels], odd sides */
    const float *bias;           /* [channels], or NULL */
    int64_t images, height, width, channels;
    int64_t kernel_height, kernel_width;
    int64_t residual;            /* whether x is added */
} RestoreDepthwise;

/* widen leaky(convolution leaky(squeeze x)) times linear x, elementwise, where x is a map grown at
   its bottom and right by reflection, as often as needed, and the convolution one of 3 x 3. */
typedef struct {
    RestoreMap x, out;           /* [images, height, width, squeeze.inputs] and
                                    [images, grown_height, grown_width, widen.outputs] */
    int64_t images, height, width;
    int64_t grown_height, grown_width; /* at least height and width */
    int64_t channels;            /* of x */
    RestoreLinear squeeze, convolution, widen, linear; /* convolution: inputs are those of nine
                                    pixels, row by row, of each all that squeeze gives; with bfloat16
                                    filled up by weights of 0 to an even number */
    float slope, next_slope;     /* of the two leaky ReLUs, below 0 */
    float *squeezed;             /* memory: [images, squeeze.outputs, plane] */
    int64_t plane;               /* at least (grown_height + 2)(grown_width + 1) + 64 */
} RestoreGated;

/* Correlation of the pixels of windows with reduced values and of channels with channels, a linear
   layer, a norm and the residual; see `correlation_branch`. */
typedef struct {
    RestoreMap qv, residual, out; /* qv [images, windows down * rows, windows across * columns,
                                    channels]; the others [images, height, width, channels] */
    int64_t images, height, width; /* inside of qv's */
    int64_t down, across;        /* windows */
    int64_t channels, heads;     /* heads divide half of the channels */
    RestoreGrid grid;            /* row by row, without a shift, halo or labels */
    int64_t block_rows, block_columns; /* of the pixels that one reduced value stands for */
    const float *weight;         /* [block_rows * block_columns] */
    const float *bias;           /* [1] */
    const float *position;       /* [heads, position_stride], behind it memory for a panel */
    int64_t position_stride;
    const int32_t *block_at;     /* [blocks]: what is added to the correlation of block m and pixel a
                                    is position[block_at[m] + a] */
    RestoreLinear proj;
    const float *norm_weight, *norm_bias; /* [channels] */
    float eps;
    int64_t parts;               /* in which a window is added up: divides its rows of blocks */
    float *sums;                 /* memory: [images * down * across, parts * channels + blocks,
                                    channels / 2 padded to a panel] */
} RestoreCorrelation;

/* An MLP with a convolution of each hidden channel in its middle:
   out = narrow(z) + residual, z = gelu(convolution of h) [+ h], h = gelu(widen(normalised x)). */
typedef struct {
    RestoreMap x, residual, out; /* residual.data may be NULL; else it holds numbers as out does */
    int64_t images, height, width, channels;
    RestoreLinear widen;
    RestoreLinear narrow;        /* each RESTORE_BLOCK of its inputs packed apart */
    const float *weight;         /* [hidden, side, side] */
    const float *bias;           /* [hidden] */
    int64_t side;                /* of the convolution: 3, 5 or 7 */
    int64_t added;               /* whether h is added */
    int64_t normalise;
    float eps;
} RestoreConvMlp;

/* SSIM of two planes, added up over all places of the window inside; in float64. */
typedef struct {
    const double *x, *y;         /* [rows, columns], at least 11 of each */
    const double *window;        /* [11], adding up to 1 */
    double *scratch;             /* [48, columns] */
    int64_t rows, columns;
    double c1, c2;               /* twice the constants of the formula */
} RestoreSimilarity;

/* Instruction sets, by number: 0 portable, 1 AVX2 with FMA, 2 AVX-512; 3 AVX-512 that multiplies
   bfloat16, which is never the best. */
RESTORE_API int64_t restore_abi(void);
RESTORE_API int64_t restore_best_isa(void);
RESTORE_API int64_t restore_has_isa(int64_t isa);
/* Tokens that are computed at once; biases per token are padded to a multiple. */
RESTORE_API int64_t restore_panel(int64_t isa);
/* Reorder a matrix [outputs, inputs] with adjacent inputs; `packed` has as many floats, or with
   bfloat16 outputs * ceil(inputs / 2). */
RESTORE_API void restore_pack(
    int64_t isa, const float *weight, int64_t outputs, int64_t inputs, float *packed);
/* A number that changes with the bits of `arrays` arrays of `counts` floats, but for one change in
   billions. That of the same floats differs from one instruction set to another. */
RESTORE_API uint64_t restore_digest(
    int64_t isa, int64_t arrays, const float *const *data, const int64_t *counts);
RESTORE_API int64_t restore_branch(int64_t isa, const RestoreBranch *call, int64_t threads);
RESTORE_API int64_t restore_attention(int64_t isa, const RestoreAttention *call, int64_t threads);
RESTORE_API int64_t restore_tokens(int64_t isa, const RestoreTokens *call, int64_t threads);
RESTORE_API int64_t restore_gated(int64_t isa, const RestoreGated *call, int64_t threads);
RESTORE_API int64_t restore_correlation(
    int64_t isa, const RestoreCorrelation *call, int64_t threads);
RESTORE_API int64_t restore_conv_mlp(int64_t isa, const RestoreConvMlp *call, int64_t threads);
/* These compute in float32, whatever the set. */
RESTORE_API int64_t restore_groups(int64_t isa, const RestoreGroups *call, int64_t threads);
RESTORE_API int64_t restore_dictionary(
    int64_t isa, const RestoreDictionary *call, int64_t threads);
RESTORE_API int64_t restore_refinement(
    int64_t isa, const RestoreRefinement *call, int64_t threads);
RESTORE_API int64_t restore_depthwise(int64_t isa, const RestoreDepthwise *call, int64_t threads);
RESTORE_API int64_t restore_attention_gradients(
    int64_t isa, const RestoreAttentionGradients *call, int64_t threads);
/* The sum; in the caller's thread alone. */
RESTORE_API double restore_similarity(int64_t isa, const RestoreSimilarity *call);

#ifdef __cplusplus
}
#endif
