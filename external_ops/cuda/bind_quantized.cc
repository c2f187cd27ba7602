#include "binding.h"

namespace paddlemix {
namespace {

using Shape = std::vector<int64_t>;

// x with another last axis: what a product with a weight gives.
Shape with_last(Shape shape, int64_t size) {
  shape.back() = size;
  return shape;
}

// `values` are [256, codes in a byte].
PaddlemixQuantizedWeight described(const Tensor& codes, const Tensor& values, const Tensor& scales, const Tensor& zeros,
                                   int64_t outputs, int64_t inputs, int64_t block) {
  return {codes.data<uint8_t>(), floats(values), floats(scales), floats(zeros), outputs, inputs, block,
          static_cast<int32_t>(8 / last(values))};
}

Tensor multiplied(const PaddlemixQuantizedWeight& weight, const Tensor& x, const Tensor* bias, bool backwards) {
  Tensor y = allocate(with_last(x.shape(), backwards ? weight.inputs : weight.outputs), x.dtype(), x);
  PaddlemixQuantizedLinear op{};
  op.weight = weight;
  op.x = numbers(x);
  op.bias = bias ? numbers(*bias) : nullptr;
  op.y = place(y);
  op.rows = rows(x);
  op.backwards = backwards;
  op.tf32 = phi::AllowTF32Cublas();
  const int dtype = dtype_of(x);
  Tensor scratch = allocate_bytes(succeeded(paddlemix_cuda_quantized_linear_scratch(&op, dtype)), x);
  op.scratch = place(scratch);
  succeeded(paddlemix_cuda_quantized_linear(&op, dtype, stream_of(x)));
  return y;
}

Tensors QuantizedLinearForward(const Tensor& x, const Tensor& codes, const Tensor& values, const Tensor& scales,
                               const Tensor& zeros, const Tensor& bias, int64_t outputs, int64_t inputs,
                               int64_t block) {
  return {multiplied(described(codes, values, scales, zeros, outputs, inputs, block), x, &bias, false)};
}

Tensors QuantizedLinearBackward(const Tensor& codes, const Tensor& values, const Tensor& scales, const Tensor& zeros,
                                const Tensor& y_grad, int64_t outputs, int64_t inputs, int64_t block) {
  return {multiplied(described(codes, values, scales, zeros, outputs, inputs, block), y_grad, nullptr, true)};
}

std::vector<Shape> ForwardShape(const Shape& x, const Shape&, const Shape&, const Shape&, const Shape&, const Shape&,
                                int64_t outputs, int64_t, int64_t) {
  return {with_last(x, outputs)};
}

std::vector<paddle::DataType> ForwardDtype(const paddle::DataType& x, const paddle::DataType&, const paddle::DataType&,
                                           const paddle::DataType&, const paddle::DataType&, const paddle::DataType&) {
  return {x};
}

std::vector<Shape> BackwardShape(const Shape&, const Shape&, const Shape&, const Shape&, const Shape& y_grad, int64_t,
                                 int64_t inputs, int64_t) {
  return {with_last(y_grad, inputs)};
}

std::vector<paddle::DataType> BackwardDtype(const paddle::DataType&, const paddle::DataType&, const paddle::DataType&,
                                            const paddle::DataType&, const paddle::DataType& y_grad) {
  return {y_grad};
}

}  // namespace
}  // namespace paddlemix

using paddle::Grad;

// The weight and a bias that is given have no gradient.
PD_BUILD_OP(paddlemix_cuda_quantized_linear)
    .Inputs({"X", "Codes", "Values", "Scales", "Zeros", "Bias"})
    .Outputs({"Y"})
    .Attrs({"outputs: int64_t", "inputs: int64_t", "block: int64_t"})
    .SetKernelFn(PD_KERNEL(paddlemix::QuantizedLinearForward))
    .SetInferShapeFn(PD_INFER_SHAPE(paddlemix::ForwardShape))
    .SetInferDtypeFn(PD_INFER_DTYPE(paddlemix::ForwardDtype));
PD_BUILD_GRAD_OP(paddlemix_cuda_quantized_linear)
    .Inputs({"Codes", "Values", "Scales", "Zeros", Grad("Y")})
    .Outputs({Grad("X")})
    .Attrs({"outputs: int64_t", "inputs: int64_t", "block: int64_t"})
    .SetKernelFn(PD_KERNEL(paddlemix::QuantizedLinearBackward))
    .SetInferShapeFn(PD_INFER_SHAPE(paddlemix::BackwardShape))
    .SetInferDtypeFn(PD_INFER_DTYPE(paddlemix::BackwardDtype));
