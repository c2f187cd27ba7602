// Weights that are held as codes, as Paddle's tensors of `paddlemix.ops.QuantizedWeight`.
#pragma once

#include "binding.h"
#include "paddlemix/codes.h"

namespace paddlemix {

// Tensors that describe one: codes, values, scales, zeros and order, of which the last two may be without numbers.
constexpr std::size_t kTensorsOfCodes = 5;

inline Codes codes_of(const Tensor& codes, const Tensor& values, const Tensor& scales, const Tensor& zeros,
                      const Tensor& order, int64_t out, int64_t in, int64_t block) {
  return {out,
          in,
          block,
          last(values) == 2 ? 4 : 8,
          codes.data<uint8_t>(),
          numbers(values),
          numbers(scales),
          numbers(zeros),
          order.numel() ? order.data<int64_t>() : nullptr};
}

}  // namespace paddlemix
