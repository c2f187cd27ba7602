// Whole ops on raw float32 memory, on all of the ops' threads; what Paddle's binding and the tests call.
#pragma once

#include <cstdint>

#include "paddlemix/codes.h"
#include "paddlemix/kernels.h"
#include "paddlemix/matmul.h"

namespace paddlemix {

void rms_norm(const RmsNorm& op, int64_t rows);
// `op.weight_grad` is overwritten.
void rms_norm_grad(const RmsNormGrad& op, int64_t rows);
void layer_norm(const LayerNorm& op, int64_t rows);
void layer_norm_grad(const LayerNormGrad& op, int64_t rows);
void rotate(const Rotate& op, int64_t tokens);
void swiglu(const float* gate, const float* up, float* y, int64_t count);
void swiglu_grad(const float* gate, const float* up, const float* y_grad, float* gate_grad, float* up_grad,
                 int64_t count);
void activate(Activation kind, const float* x, float* y, int64_t count);
void activate_grad(Activation kind, const float* x, const float* y_grad, float* x_grad, int64_t count);
// Rows of `width` numbers, `x_stride` and `y_stride` numbers apart.
void copy_rows(const float* x, int64_t x_stride, float* y, int64_t y_stride, int64_t rows, int64_t width);
// y[columns] = x[rows, columns] added up.
void sum_rows(const float* x, float* y, int64_t rows, int64_t columns);

// Steps of `count` tensors of these sizes; each number is the same for any number of threads.
void adamw(const AdamW* steps, const int64_t* sizes, int64_t count);
// The sum of each tensor's squares, the same for any number of threads.
void squared_norms(const float* const* tensors, const int64_t* sizes, int64_t count, double* sums);

void attention(const Attention& op);
// Fills delta and all gradients.
void attention_grad(const AttentionGrad& op, int64_t query_rows);

// y = activation(x w + bias); `before`, where given, is what the activation was given.
struct Linear {
  int64_t rows, in, out;
  bool weight_transposed;  // held as [out, in]
  Activation activation;
  bool rounded;  // to bfloat16
};

void linear(const Linear& op, const float* x, const float* weight, const float* bias, float* before, float* y);
// Null gradients are not computed. `before` is null where there is no activation.
void linear_grad(const Linear& op, const float* x, const float* weight, const float* before, const float* y_grad,
                 float* x_grad, float* weight_grad, float* bias_grad);

// A product with a weight that is held as codes; `rounded` to bfloat16, where there are many rows.
void coded_linear(const CodedRows& op, bool rounded);
void coded_linear_grad(const Codes& weight, int64_t rows, const float* y_grad, bool rounded, float* x_grad);
// What the product of few rows reads of it.
int64_t bytes_of(const Codes& weight);

// A weight [in, columns] that multiplies rows: in floating point, or as codes.
struct Weight {
  const float* numbers;
  const Codes* codes = nullptr;  // or null
};

// A projection of the rows: a weight and bias [columns], or null.
struct Projection {
  Weight weight;
  const float* bias;
  int64_t columns;
};

// A decoder block: RMS norm, query, key and value, rotary positions, attention to the row's tokens so far, output, RMS
// norm, gated feed-forward block.
struct DecoderBlock {
  float epsilon;
  const float* attention_norm;  // [hidden]
  // Side by side they make [rows, heads + 2 groups, size]: queries, keys, values.
  const Projection* projections;
  int64_t projection_count;
  float* keys;  // [rows, capacity, groups, size]; the token's own is written at `length`
  float* values;
  Weight output;           // [heads * size, hidden]
  const float* feed_forward_norm;
  Weight gate;  // [hidden, inner]
  Weight up;
  Weight down;  // [inner, hidden]
};

// One more token of each row through blocks, one after the other, all of the same sizes.
struct Decode {
  int64_t rows, hidden, heads, groups, size, inner;
  const float* x;          // [rows, hidden]
  const float* query_cos;  // [rows, size / 2]
  const float* query_sin;
  const float* key_cos;
  const float* key_sin;
  int64_t capacity, length;
  const uint8_t* visible;  // [rows, length + 1] or null: 0 hides a token from its row
  const DecoderBlock* blocks;
  int64_t block_count;
};

void decode(const Decode& op, float* y);

// The costs, times their `scale`, of `target` [rows], summed; the gradients of that sum, where they are not null.
struct LinearCrossEntropy {
  int64_t rows, size, vocabulary;
  bool weight_transposed;  // held as [vocabulary, size]
  bool rounded;
};

float linear_cross_entropy(const LinearCrossEntropy& op, const float* hidden, const float* weight,
                           const int64_t* target, const float* scale, float* hidden_grad, float* weight_grad);

}  // namespace paddlemix
