#include "codes_binding.h"
#include "paddlemix/ops.h"

namespace paddlemix {
namespace {

Tensors CodedForward(const Tensor& x, const Tensor& bias, const Tensor& codes, const Tensor& values,
                     const Tensor& scales, const Tensor& zeros, const Tensor& order, int64_t out, int64_t block,
                     bool rounded, bool) {
  const Codes weight = codes_of(codes, values, scales, zeros, order, out, last(x), block);
  auto shape = x.shape();
  shape.back() = out;
  Tensor y = allocate(shape);
  coded_linear({numbers(x), &weight, numbers(bias), y.data<float>(), rows(x), out}, rounded);
  return {y};
}

Tensors CodedBackward(const Tensor& x, const Tensor& bias, const Tensor& codes, const Tensor& values,
                      const Tensor& scales, const Tensor& zeros, const Tensor& order, const Tensor& y_grad, int64_t out,
                      int64_t block, bool rounded, bool x_asked) {
  const Codes weight = codes_of(codes, values, scales, zeros, order, out, last(x), block);
  Tensor x_grad = x_asked ? allocate_like(x) : unasked(x);
  Tensor bias_grad = bias.numel() ? allocate_like(bias) : unasked(bias);
  if (x_asked) coded_linear_grad(weight, rows(x), numbers(y_grad), rounded, x_grad.data<float>());
  if (bias.numel()) sum_rows(numbers(y_grad), bias_grad.data<float>(), rows(x), out);
  return {x_grad, bias_grad};
}

}  // namespace
}  // namespace paddlemix

using paddle::Grad;

PD_BUILD_OP(paddlemix_quantized_linear)
    .Inputs({"X", "Bias", "Codes", "Values", "Scales", "Zeros", "Order"})
    .Outputs({"Y"})
    .Attrs({"out: int64_t", "block: int64_t", "rounded: bool", "x_asked: bool"})
    .SetKernelFn(PD_KERNEL(paddlemix::CodedForward));
PD_BUILD_GRAD_OP(paddlemix_quantized_linear)
    .Inputs({"X", "Bias", "Codes", "Values", "Scales", "Zeros", "Order", Grad("Y")})
    .Outputs({Grad("X"), Grad("Bias")})
    .Attrs({"out: int64_t", "block: int64_t", "rounded: bool", "x_asked: bool"})
    .SetKernelFn(PD_KERNEL(paddlemix::CodedBackward));
