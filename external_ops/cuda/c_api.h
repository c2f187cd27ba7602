/* The CUDA ops on raw memory of the card, for any caller: Paddle's binding, or ctypes.

   Numbers of `dtype` lie row by row; statistics, angles, scales and losses are float32. A pointer that may be null says
   so. Every call only queues its work on `stream`, a cudaStream_t of the current device. It gives 0, or something else
   where it failed: then paddlemix_cuda_error() tells this thread why. Outputs may not overlap inputs unless it is said. */
#pragma once

#include <stdint.h>

#define PADDLEMIX_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

enum { PADDLEMIX_FLOAT32 = 0, PADDLEMIX_BFLOAT16 = 1, PADDLEMIX_FLOAT16 = 2 };
enum { PADDLEMIX_GELU = 1, PADDLEMIX_QUICK_GELU = 2 };

/* What went wrong in this thread's last failed call. */
PADDLEMIX_API const char* paddlemix_cuda_error(void);

/* The dtypes of a norm: of its rows, which the sum and their gradient share; of the branch that is added to them; of its
   result; of its weight, and of its bias. The first three are alike, or float32 mixed with one narrower dtype; a branch is
   never wider than the rows. The last two are float32, or the narrower one of rows and result. What is not there has
   any. */
typedef struct {
  int32_t x, branch, y, weight, bias;
} PaddlemixNormDtypes;

/* y = x / rms(x) * weight, by rows of `size`; `inverse` [rows] is one over the root mean square. Where `branch` is not
   null, x + branch is written to `sum` and takes the place of x. */
PADDLEMIX_API int paddlemix_cuda_rms_norm(const void* x, const void* branch, const void* weight, void* sum, void* y,
                                          float* inverse, int64_t rows, int64_t size, float epsilon,
                                          const PaddlemixNormDtypes* dtypes, void* stream);
/* Bytes of scratch for the gradient of either norm; negative where that failed. */
PADDLEMIX_API int64_t paddlemix_cuda_norm_scratch(int64_t rows, int64_t size);
/* `x` is what was normalised; `sum_grad` or null is added to `x_grad`. `branch_grad`, the same rounded to the branch's
   dtype, may be null. */
PADDLEMIX_API int paddlemix_cuda_rms_norm_grad(const void* x, const void* weight, const float* inverse,
                                               const void* y_grad, const void* sum_grad, void* x_grad,
                                               void* branch_grad, void* weight_grad, void* scratch, int64_t rows,
                                               int64_t size, const PaddlemixNormDtypes* dtypes, void* stream);
/* `weight` and `bias`, and their gradients, may be null. */
PADDLEMIX_API int paddlemix_cuda_layer_norm(const void* x, const void* weight, const void* bias, void* y, float* mean,
                                            float* inverse, int64_t rows, int64_t size, float epsilon,
                                            const PaddlemixNormDtypes* dtypes, void* stream);
PADDLEMIX_API int paddlemix_cuda_layer_norm_grad(const void* x, const void* weight, const float* mean,
                                                 const float* inverse, const void* y_grad, void* x_grad,
                                                 void* weight_grad, void* bias_grad, void* scratch, int64_t rows,
                                                 int64_t size, const PaddlemixNormDtypes* dtypes, void* stream);

/* Heads [tokens, heads, 2 half] of a tensor whose tokens are `stride` numbers apart; `y` may be `x`. */
typedef struct {
  const void* x;
  void* y;
  int64_t x_stride, y_stride;
  int32_t heads;
  int32_t turned; /* 0 copies */
} PaddlemixRotaryPart;

/* Up to three parts are turned by angles [tokens, half], all in one pass; the other way where `backwards`. */
PADDLEMIX_API int paddlemix_cuda_rotary(const PaddlemixRotaryPart* parts, int count, const float* cos,
                                        const float* sin, int64_t tokens, int half, int backwards, int dtype,
                                        void* stream);

/* y = silu(gate) * up. Outputs may be inputs here and in what follows, up to the cross entropy. */
PADDLEMIX_API int paddlemix_cuda_swiglu(const void* gate, const void* up, void* y, int64_t count, int dtype,
                                        void* stream);
PADDLEMIX_API int paddlemix_cuda_swiglu_grad(const void* gate, const void* up, const void* y_grad, void* gate_grad,
                                             void* up_grad, int64_t count, int dtype, void* stream);
PADDLEMIX_API int paddlemix_cuda_activation(int kind, const void* x, void* y, int64_t count, int dtype, void* stream);
PADDLEMIX_API int paddlemix_cuda_activation_grad(int kind, const void* x, const void* y_grad, void* x_grad,
                                                 int64_t count, int dtype, void* stream);

/* Cross entropy of the logits hidden [rows, size] times weight [size, vocabulary] ([vocabulary, size] where
   `transposed`), without holding them all.

   One rank alone asks for statistics and, where it wants gradients, for both at once, and then for the cost. Ranks that
   each hold a slice of the vocabulary, from `first_token` on, ask for the statistics, join them (the largest top; the
   totals times exp(top - largest), added; the wanted, added), and ask for the gradients and the cost; `hidden_grad` is
   then a share, to be added up over the ranks. */
typedef struct {
  const void *hidden, *weight;
  const int64_t* target; /* [rows] */
  const float* scale;    /* [rows]: by which each row's cost is multiplied */
  float* statistics;     /* [3, rows]: top, total, wanted */
  void *hidden_grad, *weight_grad; /* or null */
  void* scratch;
  int64_t rows, size, vocabulary, first_token;
  int64_t rows_at_once; /* 0 chooses */
  int32_t transposed;
  int32_t phases; /* PADDLEMIX_STATISTICS, PADDLEMIX_GRADIENTS or both */
  int32_t wide_weight_grad; /* whether it is float32, whatever the weight is */
  int32_t tf32;             /* whether products of float32 may round their factors to TF32 */
} PaddlemixCrossEntropy;

enum { PADDLEMIX_STATISTICS = 1, PADDLEMIX_GRADIENTS = 2 };

/* Bytes; negative where that failed. Of `op`, shapes and weight_grad are looked at, whether it is null or not. */
PADDLEMIX_API int64_t paddlemix_cuda_cross_entropy_scratch(const PaddlemixCrossEntropy* op, int dtype);
PADDLEMIX_API int paddlemix_cuda_linear_cross_entropy(const PaddlemixCrossEntropy* op, int dtype, void* stream);
/* The sum of the rows' costs times their scale, one float on the card. */
PADDLEMIX_API int paddlemix_cuda_cost(const float* statistics, const float* scale, int64_t rows, float* loss,
                                      void* stream);
/* x *= factor, one float on the card. */
PADDLEMIX_API int paddlemix_cuda_scale(void* x, const float* factor, int64_t count, int dtype, void* stream);

/* Attention of one new token of each row to all that a cache holds of the row, which is read where it lies; the new
   keys and values are written to place `length` of rows 0 to batch - 1, and seen. Query head h is of key head
   h / (heads / groups). */
typedef struct {
  const void* query;       /* [batch, heads, size] */
  const void *key, *value; /* [batch, groups, size] */
  void *keys, *values;     /* [batch or more, capacity, groups, size] */
  const int32_t* starts;   /* [batch], places before the first that a row sees; or null, for 0 */
  const int32_t* rows;     /* [batch, capacity], which row of the cache holds each place before `length`; or null */
  void* y;                 /* [batch, heads, size] */
  void* scratch;           /* or null where none is asked for */
  int64_t batch, heads, groups, size, capacity, length;
} PaddlemixCachedAttention;

/* Bytes; negative where that failed. Of `op`, numbers alone are looked at. */
PADDLEMIX_API int64_t paddlemix_cuda_cached_attention_scratch(const PaddlemixCachedAttention* op);
PADDLEMIX_API int paddlemix_cuda_cached_attention(const PaddlemixCachedAttention* op, int dtype, void* stream);

/* A weight [outputs, inputs] as codes of 4 or 8 bits: number n of the flattened weight is
   (value of its code - zeros[n / block]) * scales[n / block]. */
typedef struct {
  const uint8_t* codes; /* [outputs * inputs * bits / 8], rounded up; of two in a byte the lower bits come first */
  const float* values;  /* [256, 8 / bits], what the codes of each byte stand for */
  const float* scales;  /* [blocks] */
  const float* zeros;   /* [blocks], or null for 0 */
  int64_t outputs, inputs, block;
  int32_t bits;
} PaddlemixQuantizedWeight;

/* y = x weight^T + bias. Where `backwards`, x is the gradient of that [rows, outputs], and y the gradient of its x
   [rows, inputs]; without a bias. */
typedef struct {
  PaddlemixQuantizedWeight weight;
  const void* x;    /* [rows, inputs] */
  const void* bias; /* [outputs], or null */
  void* y;          /* [rows, outputs] */
  void* scratch;    /* or null where none is asked for */
  int64_t rows;
  int64_t at_once; /* outputs that are in floating point at a time, backwards inputs; 0 chooses */
  int32_t backwards;
  int32_t tf32; /* whether products of float32 may round their factors to TF32 */
} PaddlemixQuantizedLinear;

/* Bytes; negative where that failed. Of `op`, numbers are looked at, and how `x` and codes are aligned. */
PADDLEMIX_API int64_t paddlemix_cuda_quantized_linear_scratch(const PaddlemixQuantizedLinear* op, int dtype);
PADDLEMIX_API int paddlemix_cuda_quantized_linear(const PaddlemixQuantizedLinear* op, int dtype, void* stream);
/* Puts a part of a weight into floating point: y [outputs, inputs], from `first_output` and `first_input` on. */
PADDLEMIX_API int paddlemix_cuda_dequantize(const PaddlemixQuantizedWeight* weight, int64_t first_output,
                                            int64_t outputs, int64_t first_input, int64_t inputs, void* y, int dtype,
                                            void* stream);

#ifdef __cplusplus
}
#endif
