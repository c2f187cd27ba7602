// What is written once and compiled for several instruction sets: each function computes a range of rows on one thread.
#pragma once

#include <cstdint>

#include "paddlemix/codes.h"

namespace paddlemix {

// Tensors are float32, row by row; a pointer that may be null says so.

struct RmsNorm {
  const float* x;         // [rows, size]
  const float* residual;  // [rows, size] or null; added to x first
  const float* weight;    // [size]
  float* sum;             // [rows, size] or null: x + residual
  float* y;               // [rows, size]
  float* inverse;         // [rows]: one over the root mean square
  int64_t size;
  float epsilon;
};

struct RmsNormGrad {
  const float* x;         // what was normalised
  const float* weight;
  const float* inverse;
  const float* y_grad;
  const float* sum_grad;  // or null; added to the result
  float* x_grad;
  float* weight_grad;     // [size], this range's share is added
  int64_t size;
};

struct LayerNorm {
  const float* x;
  const float* weight;  // or null
  const float* bias;    // or null
  float* y;
  float* mean;     // [rows]
  float* inverse;  // [rows]: one over the standard deviation
  int64_t size;
  float epsilon;
};

struct LayerNormGrad {
  const float* x;
  const float* weight;  // or null
  const float* mean;
  const float* inverse;
  const float* y_grad;
  float* x_grad;
  float* weight_grad;  // [size], this range's share is added
  float* bias_grad;    // [size], likewise
  int64_t size;
};

struct Rotate {
  const float* x;  // [tokens, heads, size], tokens `x_stride` numbers apart
  float* y;        // may be x
  int64_t x_stride, y_stride;
  const float* cos;  // [tokens, size / 2]
  const float* sin;
  int64_t heads;
  int64_t size;
  bool backwards;  // rotate the other way, as the gradient does
};

enum class Activation : int { kNone = 0, kGelu = 1, kQuickGelu = 2 };

// One row of logits is a target's cost; the logits are overwritten with the gradient by the cost, times `scale`.
struct CrossEntropy {
  float* logits;          // [rows, size]
  const int64_t* target;  // [rows]
  const float* scale;     // [rows]
  float* cost;            // [rows], not scaled
  int64_t size;
  bool with_gradient;
};

// Rows of queries that attend to rows of keys: one row of a padded batch, or one sample of a pack.
struct Sequence {
  int64_t query_begin, query_count, key_begin, key_count;
};

struct Attention {
  const float* query;      // [query rows, heads, size], rows `query_stride` numbers apart
  const float* key;        // [key rows, groups, size], rows `key_stride` apart
  const float* value;      // likewise
  const uint8_t* visible;  // [key rows] or null: 0 hides a key from all
  const float* bias;       // or null: added to the scores, [query_count, key_count] per sequence
  int64_t bias_stride;     // from one sequence's bias to the next; 0 where all share one
  const Sequence* sequences;
  int64_t sequence_count;
  int64_t query_stride, key_stride;
  int64_t heads, groups, size;
  float scale;
  // The queries are the last of their keys, and see none after themselves. One that sees nothing, as padding on the
  // left does, weighs all keys alike.
  bool causal;
  float* out;   // [query rows, heads, size], dense
  // [query rows, heads, 2]: the largest score, and one over the sum of the exponentials of what scores are below it.
  // Not their logarithm: beside a score of -1e9 it would be lost.
  float* statistics;
};

struct AttentionGrad {
  Attention forward;
  const float* out_grad;  // as out
  float* delta;           // [query rows, heads], filled by attention_delta
  float* query_grad;      // [query rows, heads, size], dense, zeroed by the caller
  float* key_grad;        // [key rows, groups, size], dense
  float* value_grad;
};

// y[rows, columns] = x[rows, in] weight[in, columns] + bias[columns], for few rows.
struct FewRows {
  const float* x;  // rows `x_stride` numbers apart
  const float* weight;
  const float* bias;  // or null
  float* y;           // rows `y_stride` numbers apart
  int64_t rows, in, columns, x_stride, y_stride;
};

// One step of AdamW (arXiv:1711.05101) for a tensor.
struct AdamW {
  float* parameter;
  const float* gradient;
  float* moment1;
  float* moment2;
  float scale;  // of the gradient: what clipping leaves of it
  float beta1, beta2;
  float decay;  // the share of the parameter that is taken off it
  float rate, epsilon;  // corrected for moments that began with zeros
};

// Rows of queries and of keys that are worked on at once.
constexpr int64_t kBlock = 64;

struct Kernels {
  const char* name;
  int64_t width;  // numbers of a vector

  void (*rms_norm)(const RmsNorm&, int64_t begin, int64_t end);
  void (*rms_norm_grad)(const RmsNormGrad&, int64_t begin, int64_t end);
  void (*layer_norm)(const LayerNorm&, int64_t begin, int64_t end);
  void (*layer_norm_grad)(const LayerNormGrad&, int64_t begin, int64_t end);
  void (*rotate)(const Rotate&, int64_t begin, int64_t end);
  void (*cross_entropy)(const CrossEntropy&, int64_t begin, int64_t end);

  void (*swiglu)(const float* gate, const float* up, float* y, int64_t count);
  void (*swiglu_grad)(const float* gate, const float* up, const float* y_grad, float* gate_grad, float* up_grad,
                      int64_t count);
  void (*activate)(Activation, const float* x, float* y, int64_t count);
  void (*activate_grad)(Activation, const float* x, const float* y_grad, float* x_grad, int64_t count);

  void (*to_bfloat16)(const float* x, uint16_t* y, int64_t count);
  void (*round_to_bfloat16)(const float* x, float* y, int64_t count);
  // [rows, columns] added up over the rows, columns [begin, end).
  void (*sum_rows)(const float* x, float* y, int64_t rows, int64_t columns, int64_t begin, int64_t end);
  void (*adamw)(const AdamW&, int64_t begin, int64_t end);
  double (*sum_squares)(const float* x, int64_t count);
  void (*few_rows_matmul)(const FewRows&, int64_t begin, int64_t end);  // columns [begin, end)

  // Attention in blocks: keys and values are packed, [block] by [block], then every tile of queries is computed alone.
  int64_t (*packed_key_size)(int64_t size);  // numbers of a packed block of keys, or of values
  void (*pack_keys)(const Attention&, const Sequence&, int64_t group, int64_t first, float* keys, float* values);
  void (*attention_tile)(const Attention&, int64_t sequence, int64_t head, int64_t first, const float* keys,
                         const float* values);
  void (*attention_few)(const Attention&, int64_t sequence, int64_t group);
  void (*attention_delta)(const AttentionGrad&, int64_t begin, int64_t end);
  // Gradients by a sequence's keys [begin, end) and values of one group; those by its queries are added to
  // `query_grad`, laid out as the query gradient is.
  void (*attention_grad)(const AttentionGrad&, int64_t sequence, int64_t group, int64_t begin, int64_t end,
                         float* query_grad);

  void (*coded_rows)(const CodedRows&, int64_t begin, int64_t end);  // outputs [begin, end)
  // Outputs [begin, end); `columns` of them side by side, one output behind the other.
  void (*unpack_codes)(const Unpacked&, int64_t begin, int64_t end);
};

// The fastest that this processor can run.
const Kernels& kernels();

}  // namespace paddlemix
