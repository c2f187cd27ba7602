// Cross entropy of logits in float32, and its gradient, in two passes over each row.
#pragma once

#include "launch.cuh"
#include "row.cuh"

namespace paddlemix {

constexpr int kLogitThreads = 512;
constexpr int kLogitWidth = 4;

// What a row's cost needs to know of its logits. Several ranks that each hold a slice of the vocabulary join theirs:
// the largest `top`, the totals once scaled to it, and the `wanted`, all but one of them 0, added up.
struct LogitStatistics {
  float* top;     // [rows]: the largest
  float* total;   // [rows]: the sum of exp(logit - top)
  float* wanted;  // [rows]: the target's logit; 0 where it is not in this slice
};

struct Logits {
  const float* numbers;   // [rows, size]
  const int64_t* target;  // [rows], counted from the start of the whole vocabulary
  LogitStatistics statistics;
  int64_t rows, size;
  int64_t first_token;  // of this slice of the vocabulary; 0 where there is one
};

template <int kWidth>
__global__ void __launch_bounds__(kLogitThreads) logit_statistics_kernel(Logits a) {
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const float* logits = a.numbers + row * a.size;
    float top = -INFINITY, total = 0.0f;
    for (int64_t i = static_cast<int64_t>(threadIdx.x) * kWidth; i < a.size; i += kLogitThreads * kWidth) {
      const Pack<float, kWidth> numbers = read<kWidth>(logits + i);
      float larger = top;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) larger = fmaxf(larger, numbers.at[j]);
      total *= expf(top - larger);
      top = larger;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) total += expf(numbers.at[j] - top);
    }
    const float highest = largest_of<kLogitThreads>(top);
    // A thread that had no logits holds -inf, whose exponential is 0.
    total = sum_of<kLogitThreads>(total * expf(top - highest));
    if (threadIdx.x) continue;
    const int64_t place = a.target[row] - a.first_token;
    a.statistics.top[row] = highest;
    a.statistics.total[row] = total;
    a.statistics.wanted[row] = place >= 0 && place < a.size ? logits[place] : 0.0f;
  }
}

// By each logit: of the cost times `scale`. `grad` may be where the logits are.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kLogitThreads) logit_grad_kernel(Logits a, const float* scale, T* grad) {
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const float top = a.statistics.top[row], factor = scale[row], share = factor / a.statistics.total[row];
    const int64_t place = a.target[row] - a.first_token, step = static_cast<int64_t>(gridDim.y) * kLogitThreads * kWidth;
    for (int64_t i = (static_cast<int64_t>(blockIdx.y) * kLogitThreads + threadIdx.x) * kWidth; i < a.size; i += step) {
      const Pack<float, kWidth> numbers = read<kWidth>(a.numbers + row * a.size + i);
      Pack<T, kWidth> grads;
#pragma unroll
      for (int j = 0; j < kWidth; ++j)
        grads.at[j] = narrow<T>(expf(numbers.at[j] - top) * share - (i + j == place ? factor : 0.0f));
      write<kWidth>(grad + row * a.size + i, grads);
    }
  }
}

// The rows' costs, times their `scale`, added up: by one block, so that the sum is the same every time.
static __global__ void __launch_bounds__(kLogitThreads) cost_kernel(LogitStatistics statistics, const float* scale,
                                                                     int64_t rows, float* loss) {
  float sum = 0.0f;
  for (int64_t row = threadIdx.x; row < rows; row += kLogitThreads)
    sum += (logf(statistics.total[row]) + statistics.top[row] - statistics.wanted[row]) * scale[row];
  sum = sum_of<kLogitThreads>(sum);
  if (!threadIdx.x) *loss = sum;
}

inline bool has_wide_rows(const Logits& a) { return is_aligned(a.numbers) && a.size % kLogitWidth == 0; }

inline void logit_statistics(const Logits& a, cudaStream_t stream) {
  const unsigned blocks = blocks_for(a.rows, 1);
  if (!a.rows) return;
  if (has_wide_rows(a))
    launch(logit_statistics_kernel<kLogitWidth>, blocks, kLogitThreads, stream, a);
  else
    launch(logit_statistics_kernel<1>, blocks, kLogitThreads, stream, a);
}

template <typename T>
void logit_grad(const Logits& a, const float* scale, T* grad, cudaStream_t stream) {
  if (!a.rows || !a.size) return;
  constexpr int64_t kPacksOfAThread = 8, kMostAcross = 64;
  const int64_t across = (a.size - 1) / (kLogitThreads * kLogitWidth * kPacksOfAThread) + 1;
  const dim3 blocks(blocks_for(a.rows, 1), static_cast<unsigned>(std::min(across, kMostAcross)));
  if (has_wide_rows(a) && is_aligned(grad))
    launch(logit_grad_kernel<T, kLogitWidth>, blocks, kLogitThreads, stream, a, scale, grad);
  else
    launch(logit_grad_kernel<T, 1>, blocks, kLogitThreads, stream, a, scale, grad);
}

inline void cost(const LogitStatistics& statistics, const float* scale, int64_t rows, float* loss,
                 cudaStream_t stream) {
  launch(cost_kernel, 1, kLogitThreads, stream, statistics, scale, rows, loss);
}

}  // namespace paddlemix
