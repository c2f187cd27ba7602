// What Paddle's bindings of the ops share. Shapes and dtypes are checked in Python, where an error can name them.
#pragma once

#include <vector>

#include "paddle/phi/api/all.h"
#include "paddle/phi/api/ext/op_meta_info.h"

namespace paddlemix {

using paddle::Tensor;
using Tensors = std::vector<Tensor>;

inline Tensor allocate(const std::vector<int64_t>& shape) {
  return paddle::experimental::empty(shape, paddle::DataType::FLOAT32, paddle::CPUPlace());
}

inline Tensor allocate_like(const Tensor& x) { return allocate(x.shape()); }

// Null where the tensor has no numbers, which stands for "none".
inline const float* numbers(const Tensor& x) { return x.numel() ? x.data<float>() : nullptr; }

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
