#include "binding.h"
#include "paddlemix/ops.h"

namespace paddlemix {
namespace {

Tensors RmsNormForward(const Tensor& x, const Tensor& weight, float epsilon) {
  Tensor y = allocate_like(x), inverse = allocate({rows(x)});
  rms_norm({numbers(x), nullptr, numbers(weight), nullptr, y.data<float>(), inverse.data<float>(), last(x), epsilon},
           rows(x));
  return {y, inverse};
}

Tensors RmsNormBackward(const Tensor& x, const Tensor& weight, const Tensor& inverse, const Tensor& y_grad) {
  Tensor x_grad = allocate_like(x), weight_grad = allocate_like(weight);
  rms_norm_grad({numbers(x), numbers(weight), numbers(inverse), numbers(y_grad), nullptr, x_grad.data<float>(),
                 weight_grad.data<float>(), last(x)},
                rows(x));
  return {x_grad, weight_grad};
}

Tensors AddRmsNormForward(const Tensor& x, const Tensor& residual, const Tensor& weight, float epsilon) {
  Tensor y = allocate_like(x), sum = allocate_like(x), inverse = allocate({rows(x)});
  rms_norm({numbers(x), numbers(residual), numbers(weight), sum.data<float>(), y.data<float>(), inverse.data<float>(),
            last(x), epsilon},
           rows(x));
  return {sum, y, inverse};
}

Tensors AddRmsNormBackward(const Tensor& weight, const Tensor& sum, const Tensor& inverse, const Tensor& sum_grad,
                           const Tensor& y_grad) {
  Tensor x_grad = allocate_like(sum), weight_grad = allocate_like(weight);
  rms_norm_grad({numbers(sum), numbers(weight), numbers(inverse), numbers(y_grad), numbers(sum_grad),
                 x_grad.data<float>(), weight_grad.data<float>(), last(sum)},
                rows(sum));
  return {x_grad, x_grad, weight_grad};
}

Tensors LayerNormForward(const Tensor& x, const Tensor& weight, const Tensor& bias, float epsilon) {
  Tensor y = allocate_like(x), mean = allocate({rows(x)}), inverse = allocate({rows(x)});
  layer_norm({numbers(x), numbers(weight), numbers(bias), y.data<float>(), mean.data<float>(), inverse.data<float>(),
              last(x), epsilon},
             rows(x));
  return {y, mean, inverse};
}

Tensors LayerNormBackward(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& mean,
                          const Tensor& inverse, const Tensor& y_grad) {
  Tensor x_grad = allocate_like(x), weight_grad = allocate({last(x)}), bias_grad = allocate({last(x)});
  layer_norm_grad({numbers(x), numbers(weight), numbers(mean), numbers(inverse), numbers(y_grad), x_grad.data<float>(),
                   weight_grad.data<float>(), bias_grad.data<float>(), last(x)},
                  rows(x));
  return {x_grad, weight.numel() ? weight_grad : unasked(weight), bias.numel() ? bias_grad : unasked(bias)};
}

// [.., heads, size], [.., size / 2]
void turn(const Tensor& x, const Tensor& cos, const Tensor& sin, bool backwards, Tensor* y) {
  const int64_t size = last(x), heads = x.shape()[x.shape().size() - 2];
  const int64_t stride = heads * size;
  rotate({numbers(x), y->data<float>(), stride, stride, numbers(cos), numbers(sin), heads, size, backwards}, rows(cos));
}

// Rotates query and key of [tokens, 3, heads, size], and copies the value as it is; each is dense.
Tensors RotarySplitForward(const Tensor& qkv, const Tensor& cos, const Tensor& sin) {
  const auto shape = qkv.shape();
  const int64_t tokens = shape[0], width = shape[2] * shape[3];
  Tensors parts;
  for (int64_t part = 0; part < 3; ++part) {
    parts.push_back(allocate({tokens, shape[2], shape[3]}));
    const float* from = numbers(qkv) + part * width;
    if (part < 2)
      rotate({from, parts[part].data<float>(), 3 * width, width, numbers(cos), numbers(sin), shape[2], shape[3], false},
             tokens);
    else
      copy_rows(from, 3 * width, parts[part].data<float>(), width, tokens, width);
  }
  return parts;
}

Tensors RotarySplitBackward(const Tensor& cos, const Tensor& sin, const Tensor& query_grad, const Tensor& key_grad,
                            const Tensor& value_grad) {
  const auto shape = query_grad.shape();
  const int64_t tokens = shape[0], width = shape[1] * shape[2];
  Tensor qkv_grad = allocate({tokens, 3, shape[1], shape[2]});
  float* to = qkv_grad.data<float>();
  rotate({numbers(query_grad), to, width, 3 * width, numbers(cos), numbers(sin), shape[1], shape[2], true}, tokens);
  rotate({numbers(key_grad), to + width, width, 3 * width, numbers(cos), numbers(sin), shape[1], shape[2], true},
         tokens);
  copy_rows(numbers(value_grad), width, to + 2 * width, 3 * width, tokens, width);
  return {qkv_grad};
}

Tensors RotaryForward(const Tensor& x, const Tensor& cos, const Tensor& sin) {
  Tensor y = allocate_like(x);
  turn(x, cos, sin, false, &y);
  return {y};
}

Tensors RotaryBackward(const Tensor& cos, const Tensor& sin, const Tensor& y_grad) {
  Tensor x_grad = allocate_like(y_grad);
  turn(y_grad, cos, sin, true, &x_grad);
  return {x_grad};
}

void RotaryPairForward(Tensor& query, Tensor& key, const Tensor& cos, const Tensor& sin) {  // NOLINT: Paddle's way
  turn(query, cos, sin, false, &query);
  turn(key, cos, sin, false, &key);
}

Tensors RotaryPairBackward(const Tensor& cos, const Tensor& sin, const Tensor& query_grad, const Tensor& key_grad) {
  return {RotaryBackward(cos, sin, query_grad)[0], RotaryBackward(cos, sin, key_grad)[0]};
}

Tensors SwigluForward(const Tensor& gate, const Tensor& up) {
  Tensor y = allocate_like(gate);
  swiglu(numbers(gate), numbers(up), y.data<float>(), y.numel());
  return {y};
}

Tensors SwigluBackward(const Tensor& gate, const Tensor& up, const Tensor& y_grad) {
  Tensor gate_grad = allocate_like(gate), up_grad = allocate_like(up);
  swiglu_grad(numbers(gate), numbers(up), numbers(y_grad), gate_grad.data<float>(), up_grad.data<float>(),
              gate.numel());
  return {gate_grad, up_grad};
}

Tensors ActivationForward(const Tensor& x, int kind) {
  Tensor y = allocate_like(x);
  activate(static_cast<Activation>(kind), numbers(x), y.data<float>(), x.numel());
  return {y};
}

Tensors ActivationBackward(const Tensor& x, const Tensor& y_grad, int kind) {
  Tensor x_grad = allocate_like(x);
  activate_grad(static_cast<Activation>(kind), numbers(x), numbers(y_grad), x_grad.data<float>(), x.numel());
  return {x_grad};
}

}  // namespace
}  // namespace paddlemix

using paddle::Grad;

PD_BUILD_OP(paddlemix_rms_norm)
    .Inputs({"X", "Weight"})
    .Outputs({"Y", "Inverse"})
    .Attrs({"epsilon: float"})
    .SetKernelFn(PD_KERNEL(paddlemix::RmsNormForward));
PD_BUILD_GRAD_OP(paddlemix_rms_norm)
    .Inputs({"X", "Weight", "Inverse", Grad("Y")})
    .Outputs({Grad("X"), Grad("Weight")})
    .SetKernelFn(PD_KERNEL(paddlemix::RmsNormBackward));

PD_BUILD_OP(paddlemix_add_rms_norm)
    .Inputs({"X", "Residual", "Weight"})
    .Outputs({"Sum", "Y", "Inverse"})
    .Attrs({"epsilon: float"})
    .SetKernelFn(PD_KERNEL(paddlemix::AddRmsNormForward));
PD_BUILD_GRAD_OP(paddlemix_add_rms_norm)
    .Inputs({"Weight", "Sum", "Inverse", Grad("Sum"), Grad("Y")})
    .Outputs({Grad("X"), Grad("Residual"), Grad("Weight")})
    .SetKernelFn(PD_KERNEL(paddlemix::AddRmsNormBackward));

PD_BUILD_OP(paddlemix_layer_norm)
    .Inputs({"X", "Weight", "Bias"})
    .Outputs({"Y", "Mean", "Inverse"})
    .Attrs({"epsilon: float"})
    .SetKernelFn(PD_KERNEL(paddlemix::LayerNormForward));
PD_BUILD_GRAD_OP(paddlemix_layer_norm)
    .Inputs({"X", "Weight", "Bias", "Mean", "Inverse", Grad("Y")})
    .Outputs({Grad("X"), Grad("Weight"), Grad("Bias")})
    .SetKernelFn(PD_KERNEL(paddlemix::LayerNormBackward));

PD_BUILD_OP(paddlemix_rotary)
    .Inputs({"X", "Cos", "Sin"})
    .Outputs({"Y"})
    .SetKernelFn(PD_KERNEL(paddlemix::RotaryForward));
PD_BUILD_GRAD_OP(paddlemix_rotary)
    .Inputs({"Cos", "Sin", Grad("Y")})
    .Outputs({Grad("X")})
    .SetKernelFn(PD_KERNEL(paddlemix::RotaryBackward));

PD_BUILD_OP(paddlemix_rotary_split)
    .Inputs({"Qkv", "Cos", "Sin"})
    .Outputs({"Query", "Key", "Value"})
    .SetKernelFn(PD_KERNEL(paddlemix::RotarySplitForward));
PD_BUILD_GRAD_OP(paddlemix_rotary_split)
    .Inputs({"Cos", "Sin", Grad("Query"), Grad("Key"), Grad("Value")})
    .Outputs({Grad("Qkv")})
    .SetKernelFn(PD_KERNEL(paddlemix::RotarySplitBackward));

PD_BUILD_OP(paddlemix_rotary_pair)
    .Inputs({"Query", "Key", "Cos", "Sin"})
    .Outputs({"QueryOut", "KeyOut"})
    .SetInplaceMap({{"Query", "QueryOut"}, {"Key", "KeyOut"}})
    .SetKernelFn(PD_KERNEL(paddlemix::RotaryPairForward));
PD_BUILD_GRAD_OP(paddlemix_rotary_pair)
    .Inputs({"Cos", "Sin", Grad("QueryOut"), Grad("KeyOut")})
    .Outputs({Grad("Query"), Grad("Key")})
    .SetKernelFn(PD_KERNEL(paddlemix::RotaryPairBackward));

PD_BUILD_OP(paddlemix_swiglu)
    .Inputs({"Gate", "Up"})
    .Outputs({"Y"})
    .SetKernelFn(PD_KERNEL(paddlemix::SwigluForward));
PD_BUILD_GRAD_OP(paddlemix_swiglu)
    .Inputs({"Gate", "Up", Grad("Y")})
    .Outputs({Grad("Gate"), Grad("Up")})
    .SetKernelFn(PD_KERNEL(paddlemix::SwigluBackward));

PD_BUILD_OP(paddlemix_activation)
    .Inputs({"X"})
    .Outputs({"Y"})
    .Attrs({"kind: int"})
    .SetKernelFn(PD_KERNEL(paddlemix::ActivationForward));
PD_BUILD_GRAD_OP(paddlemix_activation)
    .Inputs({"X", Grad("Y")})
    .Outputs({Grad("X")})
    .Attrs({"kind: int"})
    .SetKernelFn(PD_KERNEL(paddlemix::ActivationBackward));
