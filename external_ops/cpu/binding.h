// What Paddle's bindings of the ops share. Shapes and dtypes are checked in Python, where an error can name them.
#pragma once

#include <vector>

#include "paddle/phi/api/all.h"
#include "paddle/phi/api/ext/op_meta_info.h"
#include "paddlemix/guarded.h"
#include "paddlemix/tensor_axes.h"

namespace paddlemix {

using Tensors = std::vector<Tensor>;

inline Tensor allocate(const std::vector<int64_t>& shape) {
  return paddle::experimental::empty(shape, paddle::DataType::FLOAT32, paddle::CPUPlace());
}

inline Tensor allocate_like(const Tensor& x) { return allocate(x.shape()); }

// Null where the tensor has no numbers, which stands for "none".
inline const float* numbers(const Tensor& x) { return x.numel() ? x.data<float>() : nullptr; }

}  // namespace paddlemix
