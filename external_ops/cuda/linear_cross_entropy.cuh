// Cross entropy of a linear layer's logits, of which a piece of the rows is held at a time.
#pragma once

#include "cross_entropy.cuh"
#include "matmul.cuh"

namespace paddlemix {

// Bytes of float32 logits that are held at once: some 1700 rows of the largest vocabulary, with which the products run
// at full speed and the weight's float32 gradient is rarely read and written.
constexpr int64_t kLogitBytes = int64_t{1} << 30;
constexpr int64_t kLeastRows = 16;

enum Phases { kStatistics = 1, kGradients = 2 };

template <typename T>
struct LinearCrossEntropy {
  const T* hidden;        // [rows, size]
  Matrix<T> weight;       // [size, vocabulary]: the whole, or this rank's slice
  const int64_t* target;  // [rows]
  const float* scale;     // [rows]: of the rows' costs
  LogitStatistics statistics;
  T* hidden_grad;           // [rows, size] or null
  T* weight_grad;           // as the weight, or null
  float* wide_weight_grad;  // the same for a parameter in float32, of which the weight is a rounded copy; or null
  void* scratch;
  int64_t rows, size, vocabulary, first_token;
  int64_t rows_at_once;  // 0 chooses
  int phases;            // with kGradients alone, `statistics` are those that kStatistics gave, joined
  bool tf32;             // see `Product`
};

inline int64_t rows_at_once(int64_t rows, int64_t vocabulary, int64_t wanted) {
  const int64_t fitting = kLogitBytes / (static_cast<int64_t>(sizeof(float)) * std::max<int64_t>(vocabulary, 1));
  return std::min(rows, wanted ? wanted : std::max(kLeastRows, fitting));
}

// The scratch: logits; their gradient, which takes their place where it is float32 too; and the sum of the pieces'
// weight gradients, where that has no float32 place of its own.
struct Pieces {
  int64_t rows, logits, logit_grads, weight_sums;

  int64_t bytes() const { return logits + logit_grads + weight_sums; }
};

template <typename T>
Pieces plan(int64_t rows, int64_t size, int64_t vocabulary, int64_t wanted, bool narrow_weight_asked) {
  constexpr int64_t kFloat = sizeof(float), kNarrow = sizeof(T);
  const auto padded = [](int64_t bytes) { return (bytes + 255) / 256 * 256; };
  const int64_t piece = rows_at_once(rows, vocabulary, wanted);
  const bool narrow = kNarrow < kFloat;
  return {piece, padded(piece * vocabulary * kFloat), narrow ? padded(piece * vocabulary * kNarrow) : 0,
          narrow && narrow_weight_asked && piece < rows ? padded(size * vocabulary * kFloat) : 0};
}

template <typename T>
__global__ void __launch_bounds__(kLogitThreads) narrow_kernel(const float* x, T* y, int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step)
    y[i] = narrow<T>(x[i]);
}

// Multiplies x by a number that is on the card, in place. By 1, which it nearly always is, nothing is read or written.
template <typename T>
__global__ void __launch_bounds__(kLogitThreads) scale_kernel(T* x, const float* factor, int64_t count) {
  if (*factor == 1.0f) return;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step)
    x[i] = narrow<T>(wide(x[i]) * *factor);
}

template <typename T>
void scale(T* x, const float* factor, int64_t count, cudaStream_t stream) {
  if (count) launch(scale_kernel<T>, blocks_for(count, 8 * kLogitThreads), kLogitThreads, stream, x, factor, count);
}

inline LogitStatistics from(const LogitStatistics& statistics, int64_t row) {
  return {statistics.top + row, statistics.total + row, statistics.wanted + row};
}

// The weight's share of a piece of rows, added to that of the pieces before.
template <typename T, typename Y>
void add_weight_grad(const LinearCrossEntropy<T>& a, const Product& turned, const T* hidden, const T* grads, Y* sums,
                     cudaStream_t stream) {
  if (a.weight.transposed)
    matmul({turned.n, turned.k, turned.m, turned.add, turned.tf32}, Matrix<T>{grads, true}, Matrix<T>{hidden, false}, sums, stream);
  else
    matmul(turned, Matrix<T>{hidden, true}, Matrix<T>{grads, false}, sums, stream);
}

template <typename T>
void linear_cross_entropy(const LinearCrossEntropy<T>& a, cudaStream_t stream) {
  const Pieces pieces = plan<T>(a.rows, a.size, a.vocabulary, a.rows_at_once, a.weight_grad != nullptr);
  char* scratch = static_cast<char*>(a.scratch);
  float* logits = reinterpret_cast<float*>(scratch);
  T* grads = reinterpret_cast<T*>(scratch + (pieces.logit_grads ? pieces.logits : 0));
  float* sums = pieces.weight_sums ? reinterpret_cast<float*>(scratch + pieces.logits + pieces.logit_grads)
                                   : a.wide_weight_grad;
  for (int64_t first = 0; first < a.rows; first += pieces.rows) {
    const int64_t rows = std::min(pieces.rows, a.rows - first);
    const T* hidden = a.hidden + first * a.size;
    matmul({rows, a.size, a.vocabulary, false, a.tf32}, Matrix<T>{hidden, false}, a.weight, logits, stream);
    const Logits piece{logits, a.target + first, from(a.statistics, first), rows, a.vocabulary, a.first_token};
    if (a.phases & kStatistics) logit_statistics(piece, stream);
    if (!(a.phases & kGradients)) continue;
    logit_grad(piece, a.scale + first, grads, stream);
    const Matrix<T> back{a.weight.numbers, !a.weight.transposed};
    if (a.hidden_grad)
      matmul({rows, a.vocabulary, a.size, false, a.tf32}, Matrix<T>{grads, false}, back,
             a.hidden_grad + first * a.size, stream);
    const Product turned{a.size, rows, a.vocabulary, first > 0, a.tf32};
    if (sums)
      add_weight_grad(a, turned, hidden, grads, sums, stream);
    else if (a.weight_grad)
      add_weight_grad(a, turned, hidden, grads, a.weight_grad, stream);
  }
  const int64_t count = a.size * a.vocabulary;
  if (a.weight_grad && sums)
    launch(narrow_kernel<T>, blocks_for(count, 8 * kLogitThreads), kLogitThreads, stream, sums, a.weight_grad, count);
}

}  // namespace paddlemix
