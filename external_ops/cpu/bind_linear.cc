#include "binding.h"
#include "paddlemix/ops.h"

namespace paddlemix {
namespace {

Linear describe(const Tensor& x, const Tensor& weight, bool transposed, int activation, bool rounded) {
  const int64_t in = weight.shape()[transposed ? 1 : 0], out = weight.shape()[transposed ? 0 : 1];
  return {rows(x), in, out, transposed, static_cast<Activation>(activation), rounded};
}

// `keep`: hold what the activation is given, which its gradient needs.
Tensors LinearForward(const Tensor& x, const Tensor& weight, const Tensor& bias, bool transposed, int activation,
                      bool rounded, bool keep, bool, bool) {
  const Linear op = describe(x, weight, transposed, activation, rounded);
  auto shape = x.shape();
  shape.back() = op.out;
  Tensor y = allocate(shape);
  const bool kept = keep && op.activation != Activation::kNone;
  Tensor before = allocate(kept ? shape : std::vector<int64_t>{0});
  linear(op, numbers(x), numbers(weight), numbers(bias), kept ? before.data<float>() : nullptr, y.data<float>());
  return {y, before};
}

Tensors LinearBackward(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& before,
                       const Tensor& y_grad, bool transposed, int activation, bool rounded, bool, bool x_asked,
                       bool weight_asked) {
  const Linear op = describe(x, weight, transposed, activation, rounded);
  Tensor x_grad = x_asked ? allocate_like(x) : unasked(x);
  Tensor weight_grad = weight_asked ? allocate_like(weight) : unasked(weight);
  Tensor bias_grad = bias.numel() ? allocate_like(bias) : unasked(bias);
  linear_grad(op, numbers(x), numbers(weight), numbers(before), numbers(y_grad), x_asked ? x_grad.data<float>() : nullptr,
              weight_asked ? weight_grad.data<float>() : nullptr, bias.numel() ? bias_grad.data<float>() : nullptr);
  return {x_grad, weight_grad, bias_grad};
}

// The gradients are computed with the loss, while the logits are at hand, and held until they are asked for.
Tensors CrossEntropyForward(const Tensor& hidden, const Tensor& weight, const Tensor& target, const Tensor& scale,
                            bool transposed, bool rounded, bool hidden_asked, bool weight_asked) {
  const int64_t vocabulary = weight.shape()[transposed ? 0 : 1];
  Tensor loss = allocate({}), hidden_grad = hidden_asked ? allocate_like(hidden) : allocate({0});
  Tensor weight_grad = weight_asked ? allocate_like(weight) : allocate({0});
  loss.data<float>()[0] = linear_cross_entropy(
      {rows(hidden), last(hidden), vocabulary, transposed, rounded}, numbers(hidden), numbers(weight),
      target.data<int64_t>(), numbers(scale), hidden_asked ? hidden_grad.data<float>() : nullptr,
      weight_asked ? weight_grad.data<float>() : nullptr);
  return {loss, hidden_grad, weight_grad};
}

Tensor scaled(const Tensor& x, float factor) {
  return factor == 1.0f ? x : paddle::experimental::scale(x, factor, 0.0f, true);
}

Tensors CrossEntropyBackward(const Tensor& hidden, const Tensor& weight, const Tensor& hidden_grad,
                             const Tensor& weight_grad, const Tensor& loss_grad, bool, bool, bool hidden_asked,
                             bool weight_asked) {
  const float factor = loss_grad.data<float>()[0];
  return {hidden_asked ? scaled(hidden_grad, factor) : unasked(hidden),
          weight_asked ? scaled(weight_grad, factor) : unasked(weight)};
}

}  // namespace
}  // namespace paddlemix

using paddle::Grad;

PD_BUILD_OP(paddlemix_linear)
    .Inputs({"X", "Weight", "Bias"})
    .Outputs({"Y", "Before"})
    .Attrs({"transposed: bool", "activation: int", "rounded: bool", "keep: bool", "x_asked: bool",
            "weight_asked: bool"})
    .SetKernelFn(PD_KERNEL(paddlemix::LinearForward));
PD_BUILD_GRAD_OP(paddlemix_linear)
    .Inputs({"X", "Weight", "Bias", "Before", Grad("Y")})
    .Outputs({Grad("X"), Grad("Weight"), Grad("Bias")})
    .Attrs({"transposed: bool", "activation: int", "rounded: bool", "keep: bool", "x_asked: bool",
            "weight_asked: bool"})
    .SetKernelFn(PD_KERNEL(paddlemix::LinearBackward));

PD_BUILD_OP(paddlemix_linear_cross_entropy)
    .Inputs({"Hidden", "Weight", "Target", "Scale"})
    .Outputs({"Loss", "HiddenGrad", "WeightGrad"})
    .Attrs({"transposed: bool", "rounded: bool", "hidden_asked: bool", "weight_asked: bool"})
    .SetKernelFn(PD_KERNEL(paddlemix::CrossEntropyForward));
PD_BUILD_GRAD_OP(paddlemix_linear_cross_entropy)
    .Inputs({"Hidden", "Weight", "HiddenGrad", "WeightGrad", Grad("Loss")})
    .Outputs({Grad("Hidden"), Grad("Weight")})
    .Attrs({"transposed: bool", "rounded: bool", "hidden_asked: bool", "weight_asked: bool"})
    .SetKernelFn(PD_KERNEL(paddlemix::CrossEntropyBackward));
