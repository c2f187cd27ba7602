// The CPU's ops of the same signatures are in cpu/bind_rows.cc. Names differ by a prefix, since Paddle knows each once
// and a process may need both.
#include "binding.h"

namespace paddlemix {
namespace {

// `y` is one of c_api.h's dtypes. What is not there has the dtype of `x`.
PaddlemixNormDtypes norm_dtypes(const Tensor& x, int branch, int y, const Tensor& weight, const Tensor& bias) {
  return {dtype_of(x), branch, y, dtype_of(weight), dtype_of(bias)};
}

Tensors rms_norm(const Tensor& x, const Tensor& weight, float epsilon, int dtype) {
  Tensor y = allocate(x.shape(), dtype_from(dtype), x), inverse = allocate_floats({rows(x)}, x);
  const PaddlemixNormDtypes dtypes = norm_dtypes(x, dtype_of(x), dtype, weight, weight);
  succeeded(paddlemix_cuda_rms_norm(numbers(x), nullptr, numbers(weight), nullptr, place(y), float_place(inverse),
                                    rows(x), last(x), epsilon, &dtypes, stream_of(x)));
  return {y, inverse};
}

Tensors RmsNormForward(const Tensor& x, const Tensor& weight, float epsilon) {
  return rms_norm(x, weight, epsilon, dtype_of(x));
}

Tensors MixedRmsNormForward(const Tensor& x, const Tensor& weight, float epsilon, int dtype) {
  return rms_norm(x, weight, epsilon, dtype);
}

Tensors add_rms_norm(const Tensor& x, const Tensor& branch, const Tensor& weight, float epsilon, int dtype) {
  Tensor sum = allocate_like(x), y = allocate(x.shape(), dtype_from(dtype), x);
  Tensor inverse = allocate_floats({rows(x)}, x);
  const PaddlemixNormDtypes dtypes = norm_dtypes(x, dtype_of(branch), dtype, weight, weight);
  succeeded(paddlemix_cuda_rms_norm(numbers(x), numbers(branch), numbers(weight), place(sum), place(y),
                                    float_place(inverse), rows(x), last(x), epsilon, &dtypes, stream_of(x)));
  return {sum, y, inverse};
}

Tensors AddRmsNormForward(const Tensor& x, const Tensor& residual, const Tensor& weight, float epsilon) {
  return add_rms_norm(x, residual, weight, epsilon, dtype_of(x));
}

// The wider of the two addends is what the other is added to.
Tensors MixedAddRmsNormForward(const Tensor& x, const Tensor& residual, const Tensor& weight, float epsilon, int dtype,
                               int x_dtype, int) {
  const bool is_wide = x_dtype == PADDLEMIX_FLOAT32;
  return add_rms_norm(is_wide ? x : residual, is_wide ? residual : x, weight, epsilon, dtype);
}

// By x, branch and weight; the branch's is that of x where their dtypes are the same.
Tensors rms_norm_grad(const Tensor& x, const Tensor& weight, const Tensor& inverse, const Tensor& y_grad,
                      const void* sum_grad, int branch) {
  Tensor x_grad = allocate_like(x), weight_grad = allocate_like(weight), branch_grad = x_grad;
  const bool is_mixed = branch != dtype_of(x);
  if (is_mixed) branch_grad = allocate(x.shape(), dtype_from(branch), x);
  Tensor scratch = allocate_bytes(succeeded(paddlemix_cuda_norm_scratch(rows(x), last(x))), x);
  const PaddlemixNormDtypes dtypes = norm_dtypes(x, branch, dtype_of(y_grad), weight, weight);
  succeeded(paddlemix_cuda_rms_norm_grad(numbers(x), numbers(weight), floats(inverse), numbers(y_grad), sum_grad,
                                         place(x_grad), is_mixed ? place(branch_grad) : nullptr, place(weight_grad),
                                         place(scratch), rows(x), last(x), &dtypes, stream_of(x)));
  return {x_grad, branch_grad, weight_grad};
}

Tensors RmsNormBackward(const Tensor& x, const Tensor& weight, const Tensor& inverse, const Tensor& y_grad) {
  const Tensors grads = rms_norm_grad(x, weight, inverse, y_grad, nullptr, dtype_of(x));
  return {grads[0], grads[2]};
}

Tensors AddRmsNormBackward(const Tensor& weight, const Tensor& sum, const Tensor& inverse, const Tensor& sum_grad,
                           const Tensor& y_grad) {
  return rms_norm_grad(sum, weight, inverse, y_grad, numbers(sum_grad), dtype_of(sum));
}

Tensors MixedAddRmsNormBackward(const Tensor& weight, const Tensor& sum, const Tensor& inverse, const Tensor& sum_grad,
                                const Tensor& y_grad, float, int, int x_dtype, int residual_dtype) {
  const bool is_wide = x_dtype == PADDLEMIX_FLOAT32;
  const Tensors grads =
      rms_norm_grad(sum, weight, inverse, y_grad, numbers(sum_grad), is_wide ? residual_dtype : x_dtype);
  return {grads[is_wide ? 0 : 1], grads[is_wide ? 1 : 0], grads[2]};
}

Tensors layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float epsilon, int dtype) {
  Tensor y = allocate(x.shape(), dtype_from(dtype), x);
  Tensor mean = allocate_floats({rows(x)}, x), inverse = allocate_floats({rows(x)}, x);
  const PaddlemixNormDtypes dtypes = norm_dtypes(x, dtype_of(x), dtype, weight, bias);
  succeeded(paddlemix_cuda_layer_norm(numbers(x), numbers(weight), numbers(bias), place(y), float_place(mean),
                                      float_place(inverse), rows(x), last(x), epsilon, &dtypes, stream_of(x)));
  return {y, mean, inverse};
}

Tensors LayerNormForward(const Tensor& x, const Tensor& weight, const Tensor& bias, float epsilon) {
  return layer_norm(x, weight, bias, epsilon, dtype_of(x));
}

Tensors MixedLayerNormForward(const Tensor& x, const Tensor& weight, const Tensor& bias, float epsilon, int dtype) {
  return layer_norm(x, weight, bias, epsilon, dtype);
}

Tensors LayerNormBackward(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& mean,
                          const Tensor& inverse, const Tensor& y_grad) {
  Tensor x_grad = allocate_like(x), weight_grad = allocate_like(weight), bias_grad = allocate_like(bias);
  Tensor scratch = allocate_bytes(succeeded(paddlemix_cuda_norm_scratch(rows(x), last(x))), x);
  const PaddlemixNormDtypes dtypes = norm_dtypes(x, dtype_of(x), dtype_of(y_grad), weight, bias);
  succeeded(paddlemix_cuda_layer_norm_grad(numbers(x), numbers(weight), floats(mean), floats(inverse), numbers(y_grad),
                                           place(x_grad), place(weight_grad), place(bias_grad), place(scratch),
                                           rows(x), last(x), &dtypes, stream_of(x)));
  return {x_grad, weight_grad, bias_grad};
}

// Heads [..., heads, size] of a dense tensor; `y` may be `x`.
PaddlemixRotaryPart whole(const Tensor& x, Tensor& y) {
  const int64_t size = last(x), heads = x.shape()[x.shape().size() - 2];
  return {numbers(x), place(y), heads * size, heads * size, static_cast<int32_t>(heads), 1};
}

void rotate(const std::vector<PaddlemixRotaryPart>& parts, const Tensor& cos, const Tensor& sin, bool backwards,
            const Tensor& like) {
  succeeded(paddlemix_cuda_rotary(parts.data(), static_cast<int>(parts.size()), floats(cos), floats(sin), rows(cos),
                                  static_cast<int>(last(cos)), backwards, dtype_of(like), stream_of(like)));
}

Tensors RotaryForward(const Tensor& x, const Tensor& cos, const Tensor& sin) {
  Tensor y = allocate_like(x);
  rotate({whole(x, y)}, cos, sin, false, x);
  return {y};
}

Tensors RotaryBackward(const Tensor& cos, const Tensor& sin, const Tensor& y_grad) {
  Tensor x_grad = allocate_like(y_grad);
  rotate({whole(y_grad, x_grad)}, cos, sin, true, y_grad);
  return {x_grad};
}

void RotaryPairForward(Tensor& query, Tensor& key, const Tensor& cos, const Tensor& sin) {  // NOLINT: Paddle's way
  rotate({whole(query, query), whole(key, key)}, cos, sin, false, query);
}

Tensors RotaryPairBackward(const Tensor& cos, const Tensor& sin, const Tensor& query_grad, const Tensor& key_grad) {
  Tensor query = allocate_like(query_grad), key = allocate_like(key_grad);
  rotate({whole(query_grad, query), whole(key_grad, key)}, cos, sin, true, query_grad);
  return {query, key};
}

// Part 0, 1 or 2 of a dense [tokens, 3, heads, size].
char* part_of(const void* qkv, int64_t part, int64_t width, const Tensor& like) {
  const auto offset = static_cast<int64_t>(part * width * phi::SizeOf(like.dtype()));
  return qkv ? static_cast<char*>(const_cast<void*>(qkv)) + offset : nullptr;
}

Tensors RotarySplitForward(const Tensor& qkv, const Tensor& cos, const Tensor& sin) {
  const auto shape = qkv.shape();
  const int64_t width = shape[2] * shape[3];
  Tensors apart;
  std::vector<PaddlemixRotaryPart> parts;
  for (int part = 0; part < 3; ++part) {
    apart.push_back(allocate({shape[0], shape[2], shape[3]}, qkv.dtype(), qkv));
    parts.push_back({part_of(numbers(qkv), part, width, qkv), place(apart.back()), 3 * width, width,
                     static_cast<int32_t>(shape[2]), part < 2});
  }
  rotate(parts, cos, sin, false, qkv);
  return apart;
}

Tensors RotarySplitBackward(const Tensor& cos, const Tensor& sin, const Tensor& query_grad, const Tensor& key_grad,
                            const Tensor& value_grad) {
  const auto shape = query_grad.shape();
  const int64_t width = shape[1] * shape[2];
  Tensor qkv_grad = allocate({shape[0], 3, shape[1], shape[2]}, query_grad.dtype(), query_grad);
  std::vector<PaddlemixRotaryPart> parts;
  const Tensor* grads[] = {&query_grad, &key_grad, &value_grad};
  for (int part = 0; part < 3; ++part)
    parts.push_back({numbers(*grads[part]), part_of(place(qkv_grad), part, width, qkv_grad), width, 3 * width,
                     static_cast<int32_t>(shape[1]), part < 2});
  rotate(parts, cos, sin, true, query_grad);
  return {qkv_grad};
}

Tensors SwigluForward(const Tensor& gate, const Tensor& up) {
  Tensor y = allocate_like(gate);
  succeeded(paddlemix_cuda_swiglu(numbers(gate), numbers(up), place(y), y.numel(), dtype_of(gate), stream_of(gate)));
  return {y};
}

Tensors SwigluBackward(const Tensor& gate, const Tensor& up, const Tensor& y_grad) {
  Tensor gate_grad = allocate_like(gate), up_grad = allocate_like(up);
  succeeded(paddlemix_cuda_swiglu_grad(numbers(gate), numbers(up), numbers(y_grad), place(gate_grad), place(up_grad),
                                       gate.numel(), dtype_of(gate), stream_of(gate)));
  return {gate_grad, up_grad};
}

Tensors ActivationForward(const Tensor& x, int kind) {
  Tensor y = allocate_like(x);
  succeeded(paddlemix_cuda_activation(kind, numbers(x), place(y), x.numel(), dtype_of(x), stream_of(x)));
  return {y};
}

Tensors ActivationBackward(const Tensor& x, const Tensor& y_grad, int kind) {
  Tensor x_grad = allocate_like(x);
  succeeded(paddlemix_cuda_activation_grad(kind, numbers(x), numbers(y_grad), place(x_grad), x.numel(), dtype_of(x),
                                           stream_of(x)));
  return {x_grad};
}

}  // namespace
}  // namespace paddlemix

using paddle::Grad;

PD_BUILD_OP(paddlemix_cuda_rms_norm)
    .Inputs({"X", "Weight"})
    .Outputs({"Y", "Inverse"})
    .Attrs({"epsilon: float"})
    .SetKernelFn(PD_KERNEL(paddlemix::RmsNormForward));
PD_BUILD_GRAD_OP(paddlemix_cuda_rms_norm)
    .Inputs({"X", "Weight", "Inverse", Grad("Y")})
    .Outputs({Grad("X"), Grad("Weight")})
    .SetKernelFn(PD_KERNEL(paddlemix::RmsNormBackward));

// Of float32 and one narrower dtype; `dtype` is the result's. CPUs have none.
PD_BUILD_OP(paddlemix_cuda_mixed_rms_norm)
    .Inputs({"X", "Weight"})
    .Outputs({"Y", "Inverse"})
    .Attrs({"epsilon: float", "dtype: int"})
    .SetKernelFn(PD_KERNEL(paddlemix::MixedRmsNormForward));
PD_BUILD_GRAD_OP(paddlemix_cuda_mixed_rms_norm)
    .Inputs({"X", "Weight", "Inverse", Grad("Y")})
    .Outputs({Grad("X"), Grad("Weight")})
    .SetKernelFn(PD_KERNEL(paddlemix::RmsNormBackward));

PD_BUILD_OP(paddlemix_cuda_add_rms_norm)
    .Inputs({"X", "Residual", "Weight"})
    .Outputs({"Sum", "Y", "Inverse"})
    .Attrs({"epsilon: float"})
    .SetKernelFn(PD_KERNEL(paddlemix::AddRmsNormForward));
PD_BUILD_GRAD_OP(paddlemix_cuda_add_rms_norm)
    .Inputs({"Weight", "Sum", "Inverse", Grad("Sum"), Grad("Y")})
    .Outputs({Grad("X"), Grad("Residual"), Grad("Weight")})
    .SetKernelFn(PD_KERNEL(paddlemix::AddRmsNormBackward));

// The gradient sees neither addend: what dtypes they had is said.
PD_BUILD_OP(paddlemix_cuda_mixed_add_rms_norm)
    .Inputs({"X", "Residual", "Weight"})
    .Outputs({"Sum", "Y", "Inverse"})
    .Attrs({"epsilon: float", "dtype: int", "x_dtype: int", "residual_dtype: int"})
    .SetKernelFn(PD_KERNEL(paddlemix::MixedAddRmsNormForward));
PD_BUILD_GRAD_OP(paddlemix_cuda_mixed_add_rms_norm)
    .Inputs({"Weight", "Sum", "Inverse", Grad("Sum"), Grad("Y")})
    .Outputs({Grad("X"), Grad("Residual"), Grad("Weight")})
    .Attrs({"epsilon: float", "dtype: int", "x_dtype: int", "residual_dtype: int"})
    .SetKernelFn(PD_KERNEL(paddlemix::MixedAddRmsNormBackward));

PD_BUILD_OP(paddlemix_cuda_layer_norm)
    .Inputs({"X", "Weight", "Bias"})
    .Outputs({"Y", "Mean", "Inverse"})
    .Attrs({"epsilon: float"})
    .SetKernelFn(PD_KERNEL(paddlemix::LayerNormForward));
PD_BUILD_GRAD_OP(paddlemix_cuda_layer_norm)
    .Inputs({"X", "Weight", "Bias", "Mean", "Inverse", Grad("Y")})
    .Outputs({Grad("X"), Grad("Weight"), Grad("Bias")})
    .SetKernelFn(PD_KERNEL(paddlemix::LayerNormBackward));

PD_BUILD_OP(paddlemix_cuda_mixed_layer_norm)
    .Inputs({"X", "Weight", "Bias"})
    .Outputs({"Y", "Mean", "Inverse"})
    .Attrs({"epsilon: float", "dtype: int"})
    .SetKernelFn(PD_KERNEL(paddlemix::MixedLayerNormForward));
PD_BUILD_GRAD_OP(paddlemix_cuda_mixed_layer_norm)
    .Inputs({"X", "Weight", "Bias", "Mean", "Inverse", Grad("Y")})
    .Outputs({Grad("X"), Grad("Weight"), Grad("Bias")})
    .SetKernelFn(PD_KERNEL(paddlemix::LayerNormBackward));

PD_BUILD_OP(paddlemix_cuda_rotary)
    .Inputs({"X", "Cos", "Sin"})
    .Outputs({"Y"})
    .SetKernelFn(PD_KERNEL(paddlemix::RotaryForward));
PD_BUILD_GRAD_OP(paddlemix_cuda_rotary)
    .Inputs({"Cos", "Sin", Grad("Y")})
    .Outputs({Grad("X")})
    .SetKernelFn(PD_KERNEL(paddlemix::RotaryBackward));

PD_BUILD_OP(paddlemix_cuda_rotary_split)
    .Inputs({"Qkv", "Cos", "Sin"})
    .Outputs({"Query", "Key", "Value"})
    .SetKernelFn(PD_KERNEL(paddlemix::RotarySplitForward));
PD_BUILD_GRAD_OP(paddlemix_cuda_rotary_split)
    .Inputs({"Cos", "Sin", Grad("Query"), Grad("Key"), Grad("Value")})
    .Outputs({Grad("Qkv")})
    .SetKernelFn(PD_KERNEL(paddlemix::RotarySplitBackward));

PD_BUILD_OP(paddlemix_cuda_rotary_pair)
    .Inputs({"Query", "Key", "Cos", "Sin"})
    .Outputs({"QueryOut", "KeyOut"})
    .SetInplaceMap({{"Query", "QueryOut"}, {"Key", "KeyOut"}})
    .SetKernelFn(PD_KERNEL(paddlemix::RotaryPairForward));
PD_BUILD_GRAD_OP(paddlemix_cuda_rotary_pair)
    .Inputs({"Cos", "Sin", Grad("QueryOut"), Grad("KeyOut")})
    .Outputs({Grad("Query"), Grad("Key")})
    .SetKernelFn(PD_KERNEL(paddlemix::RotaryPairBackward));

PD_BUILD_OP(paddlemix_cuda_swiglu)
    .Inputs({"Gate", "Up"})
    .Outputs({"Y"})
    .SetKernelFn(PD_KERNEL(paddlemix::SwigluForward));
PD_BUILD_GRAD_OP(paddlemix_cuda_swiglu)
    .Inputs({"Gate", "Up", Grad("Y")})
    .Outputs({Grad("Gate"), Grad("Up")})
    .SetKernelFn(PD_KERNEL(paddlemix::SwigluBackward));

PD_BUILD_OP(paddlemix_cuda_activation)
    .Inputs({"X"})
    .Outputs({"Y"})
    .Attrs({"kind: int"})
    .SetKernelFn(PD_KERNEL(paddlemix::ActivationForward));
PD_BUILD_GRAD_OP(paddlemix_cuda_activation)
    .Inputs({"X", Grad("Y")})
    .Outputs({Grad("X")})
    .Attrs({"kind: int"})
    .SetKernelFn(PD_KERNEL(paddlemix::ActivationBackward));
