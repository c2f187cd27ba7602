// What Paddle's bindings of the CUDA ops share. Shapes and dtypes are checked in Python, where an error can name them.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "c_api.h"
#include "paddle/phi/api/all.h"
#include "paddle/phi/api/ext/op_meta_info.h"
#include "paddlemix/guarded.h"
#include "paddlemix/tensor_axes.h"

namespace phi {
// Of paddle/phi/backends/context_pool.h, which includes more of CUDA than these ops need.
PADDLE_API bool AllowTF32Cublas();
}  // namespace phi

namespace paddlemix {

using Tensors = std::vector<Tensor>;

inline Tensor allocate(const std::vector<int64_t>& shape, paddle::DataType dtype, const Tensor& like) {
  return paddle::experimental::empty(shape, dtype, like.place());
}

inline Tensor allocate_like(const Tensor& x) { return allocate(x.shape(), x.dtype(), x); }

inline Tensor allocate_floats(const std::vector<int64_t>& shape, const Tensor& like) {
  return allocate(shape, paddle::DataType::FLOAT32, like);
}

inline Tensor allocate_bytes(int64_t bytes, const Tensor& like) {
  return allocate({bytes}, paddle::DataType::UINT8, like);
}

// Null where the tensor has no numbers, which stands for "none".
inline const void* numbers(const Tensor& x) { return x.numel() ? x.data() : nullptr; }
inline void* place(Tensor& x) { return x.numel() ? x.data() : nullptr; }
inline const float* floats(const Tensor& x) { return x.numel() ? x.data<float>() : nullptr; }
inline float* float_place(Tensor& x) { return x.numel() ? x.data<float>() : nullptr; }

inline int dtype_of(const Tensor& x) {
  switch (x.dtype()) {
    case paddle::DataType::FLOAT32:
      return PADDLEMIX_FLOAT32;
    case paddle::DataType::BFLOAT16:
      return PADDLEMIX_BFLOAT16;
    case paddle::DataType::FLOAT16:
      return PADDLEMIX_FLOAT16;
    default:
      throw std::invalid_argument("a CUDA op was called with a dtype other than float32, bfloat16 and float16");
  }
}

// Paddle's name of one of c_api.h's dtypes.
inline paddle::DataType dtype_from(int dtype) {
  switch (dtype) {
    case PADDLEMIX_FLOAT32:
      return paddle::DataType::FLOAT32;
    case PADDLEMIX_BFLOAT16:
      return paddle::DataType::BFLOAT16;
    case PADDLEMIX_FLOAT16:
      return paddle::DataType::FLOAT16;
    default:
      throw std::invalid_argument("dtype is " + std::to_string(dtype) + "; expected 0, 1 or 2");
  }
}

// Paddle's stream of the card that the tensor is on: what Paddle queued before is done before.
inline void* stream_of(const Tensor& x) { return x.stream(); }

template <typename Status>
Status succeeded(Status status) {
  if (status < 0) throw std::runtime_error(std::string("a CUDA op failed: ") + paddlemix_cuda_error());
  return status;
}

}  // namespace paddlemix
