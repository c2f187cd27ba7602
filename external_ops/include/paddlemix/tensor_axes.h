// The shapes of Paddle's tensors, as the bindings of the CPU's and of the CUDA ops read them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "paddle/phi/api/all.h"

namespace paddlemix {

using paddle::Tensor;

inline int64_t last(const Tensor& x) { return x.shape().back(); }

// All axes but the last as one.
inline int64_t rows(const Tensor& x) {
  const auto shape = x.shape();
  int64_t count = 1;
  for (std::size_t axis = 0; axis + 1 < shape.size(); ++axis) count *= shape[axis];
  return count;
}

// A gradient that nobody asked for: Paddle wants a tensor, and drops it.
inline Tensor unasked(const Tensor& x) { return x; }

}  // namespace paddlemix
