// Ops that compute each number from those at the same place. An output may be an input.
#pragma once

#include "launch.cuh"

namespace paddlemix {

constexpr int kElementThreads = 256;

template <typename T, int kInputs, int kOutputs>
struct Elements {
  const T* inputs[kInputs];
  T* outputs[kOutputs];
  int64_t count;
};

__device__ inline float sigmoid(float x) { return __fdividef(1.0f, 1.0f + expf(-x)); }

// Of a standard normal number: the probability that it is below x.
__device__ inline float normal_below(float x) { return 0.5f * erfcf(-0.707106781f * x); }

// gate, up -> silu(gate) * up
struct Swiglu {
  static constexpr int kInputs = 2, kOutputs = 1;
  __device__ static void compute(const float (&x)[2], float (&y)[1]) { y[0] = x[0] * sigmoid(x[0]) * x[1]; }
};

// gate, up, y_grad -> gate_grad, up_grad
struct SwigluGrad {
  static constexpr int kInputs = 3, kOutputs = 2;
  __device__ static void compute(const float (&x)[3], float (&y)[2]) {
    const float open = sigmoid(x[0]);
    y[0] = x[2] * x[1] * open * (1.0f + x[0] * (1.0f - open));
    y[1] = x[2] * x[0] * open;
  }
};

struct Gelu {
  static constexpr int kInputs = 1, kOutputs = 1;
  __device__ static void compute(const float (&x)[1], float (&y)[1]) { y[0] = x[0] * normal_below(x[0]); }
};

// x, y_grad -> x_grad
struct GeluGrad {
  static constexpr int kInputs = 2, kOutputs = 1;
  __device__ static void compute(const float (&x)[2], float (&y)[1]) {
    y[0] = x[1] * (normal_below(x[0]) + 0.398942280f * x[0] * expf(-0.5f * x[0] * x[0]));
  }
};

struct QuickGelu {
  static constexpr int kInputs = 1, kOutputs = 1;
  __device__ static void compute(const float (&x)[1], float (&y)[1]) { y[0] = x[0] * sigmoid(1.702f * x[0]); }
};

// x, y_grad -> x_grad
struct QuickGeluGrad {
  static constexpr int kInputs = 2, kOutputs = 1;
  __device__ static void compute(const float (&x)[2], float (&y)[1]) {
    const float open = sigmoid(1.702f * x[0]);
    y[0] = x[1] * open * (1.0f + 1.702f * x[0] * (1.0f - open));
  }
};

template <typename Op, int kWidth, typename T>
__device__ void compute_at(const Elements<T, Op::kInputs, Op::kOutputs>& a, int64_t i) {
  Pack<T, kWidth> inputs[Op::kInputs], outputs[Op::kOutputs];
#pragma unroll
  for (int n = 0; n < Op::kInputs; ++n) inputs[n] = read<kWidth>(a.inputs[n] + i);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    float x[Op::kInputs], y[Op::kOutputs];
#pragma unroll
    for (int n = 0; n < Op::kInputs; ++n) x[n] = wide(inputs[n].at[j]);
    Op::compute(x, y);
#pragma unroll
    for (int n = 0; n < Op::kOutputs; ++n) outputs[n].at[j] = narrow<T>(y[n]);
  }
#pragma unroll
  for (int n = 0; n < Op::kOutputs; ++n) write<kWidth>(a.outputs[n] + i, outputs[n]);
}

template <typename Op, typename T, int kWidth>
__global__ void __launch_bounds__(kElementThreads) element_kernel(Elements<T, Op::kInputs, Op::kOutputs> a) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x, packs = a.count / kWidth;
  for (int64_t pack = thread; pack < packs; pack += threads) compute_at<Op, kWidth>(a, pack * kWidth);
  // What is left is less than a pack.
  if (packs * kWidth + thread < a.count) compute_at<Op, 1>(a, packs * kWidth + thread);
}

template <typename Op, typename T>
void compute(const Elements<T, Op::kInputs, Op::kOutputs>& a, cudaStream_t stream) {
  if (!a.count) return;
  bool aligned = true;
  for (const T* input : a.inputs) aligned = aligned && is_aligned(input);
  for (const T* output : a.outputs) aligned = aligned && is_aligned(output);
  with_width<T>(aligned, [&](auto width) {
    launch(element_kernel<Op, T, width()>, blocks_for(a.count, kElementThreads * width()), kElementThreads, stream, a);
  });
}

}  // namespace paddlemix
