// Starting kernels, and choosing the instance of a template by what is known only when it is called.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "numbers.cuh"

namespace paddlemix {

inline void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

// `parameters` are those that the kernel declares; the arguments are converted to them.
template <typename... Parameters>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, cudaStream_t stream,
            std::common_type_t<Parameters>... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, arguments...));
}

// Kernels stride over what more blocks would have taken.
constexpr int64_t kMostBlocks = 1 << 20;

inline unsigned blocks_for(int64_t work, int64_t of_a_block) {
  return static_cast<unsigned>(std::min((work + of_a_block - 1) / of_a_block, kMostBlocks));
}

inline int multiprocessors() {
  int device = 0, count = 0;
  check(cudaGetDevice(&device));
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  return count;
}

// Calls `work(T())` for the dtype of c_api.h.
template <typename Work>
void with_dtype(int dtype, const Work& work) {
  switch (dtype) {
    case 0:
      return work(float());
    case 1:
      return work(__nv_bfloat16());
    case 2:
      return work(__half());
  }
  throw std::invalid_argument("dtype is " + std::to_string(dtype) + "; expected 0, 1 or 2");
}

// Calls `work(X(), Branch(), Y())` for dtypes of c_api.h: all alike, or float32 mixed with one narrower dtype, in which a
// branch never is wider than what it is added to.
template <typename Work>
void with_norm_dtypes(int x, int branch, int y, const Work& work) {
  const int narrower = std::max({x, branch, y});
  for (int dtype : {x, branch, y})
    if (dtype != 0 && dtype != narrower) throw std::invalid_argument("two narrow dtypes are mixed; expected one");
  if (x != 0 && branch == 0) throw std::invalid_argument("a float32 branch is added to narrower rows");
  with_dtype(narrower, [&](auto t) {
    using Narrow = decltype(t);
    const auto with_branch = [&](auto of_x, auto of_branch) {
      if (y == 0)
        work(of_x, of_branch, float());
      else
        work(of_x, of_branch, Narrow());
    };
    if (x != 0)
      with_branch(Narrow(), Narrow());
    else if (branch != 0)
      with_branch(float(), Narrow());
    else
      with_branch(float(), float());
  });
}

// Calls `work` with the number of numbers a load may bring: as many as fit, or 1 where shapes or addresses are odd.
template <typename T, typename Work>
void with_width(bool wide_fits, const Work& work) {
  if (wide_fits)
    work(std::integral_constant<int, kVector<T>>());
  else
    work(std::integral_constant<int, 1>());
}

}  // namespace paddlemix
