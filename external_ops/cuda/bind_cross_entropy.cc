// The CPU's op of the same signature is in cpu/bind_linear.cc.
#include "binding.h"

namespace paddlemix {
namespace {

// The weight in the dtype in which products are computed, that of the hidden states. A parameter in float32 is rounded
// once a call: its copy is freed with the op, since nothing tells whether the parameter is still the same at the next.
Tensor factor_of(const Tensor& weight, const Tensor& hidden) {
  return weight.dtype() == hidden.dtype() ? weight : paddle::experimental::cast(weight, hidden.dtype());
}

PaddlemixCrossEntropy described(const Tensor& hidden, const Tensor& weight, const Tensor& factor, const Tensor& target,
                                const Tensor& scale, float* statistics, bool transposed, int phases) {
  PaddlemixCrossEntropy op{};
  op.hidden = numbers(hidden);
  op.weight = numbers(factor);
  op.target = target.data<int64_t>();
  op.scale = floats(scale);
  op.statistics = statistics;
  op.rows = rows(hidden);
  op.size = last(hidden);
  op.vocabulary = weight.shape()[transposed ? 0 : 1];
  op.transposed = transposed;
  op.phases = phases;
  op.wide_weight_grad = weight.dtype() == paddle::DataType::FLOAT32;
  op.tf32 = phi::AllowTF32Cublas();  // what Paddle's own products go by
  return op;
}

void compute(PaddlemixCrossEntropy& op, const Tensor& hidden) {
  Tensor scratch = allocate_bytes(succeeded(paddlemix_cuda_cross_entropy_scratch(&op, dtype_of(hidden))), hidden);
  op.scratch = place(scratch);
  succeeded(paddlemix_cuda_linear_cross_entropy(&op, dtype_of(hidden), stream_of(hidden)));
}

Tensor cost_of(const Tensor& statistics, const Tensor& scale) {
  Tensor loss = allocate_floats({}, scale);
  succeeded(paddlemix_cuda_cost(floats(statistics), floats(scale), scale.numel(), float_place(loss), stream_of(scale)));
  return loss;
}

// The gradients are computed with the loss, while the logits are at hand, and held until they are asked for. `rounded`
// is the CPU's: products are computed from the dtype that is given.
Tensors CrossEntropyForward(const Tensor& hidden, const Tensor& weight, const Tensor& target, const Tensor& scale,
                            bool transposed, bool, bool hidden_asked, bool weight_asked) {
  Tensor statistics = allocate_floats({3, rows(hidden)}, hidden);
  Tensor hidden_grad = hidden_asked ? allocate_like(hidden) : allocate_floats({0}, hidden);
  Tensor weight_grad = weight_asked ? allocate_like(weight) : allocate_floats({0}, hidden);
  const Tensor factor = factor_of(weight, hidden);
  const int phases = PADDLEMIX_STATISTICS | (hidden_asked || weight_asked ? PADDLEMIX_GRADIENTS : 0);
  PaddlemixCrossEntropy op =
      described(hidden, weight, factor, target, scale, float_place(statistics), transposed, phases);
  op.hidden_grad = place(hidden_grad);
  op.weight_grad = place(weight_grad);
  compute(op, hidden);
  return {cost_of(statistics, scale), hidden_grad, weight_grad};
}

// In place: whether the factor is 1, and there is nothing to do, is known on the card alone.
Tensor scaled(const Tensor& x, const Tensor& factor) {
  Tensor same = x;
  succeeded(paddlemix_cuda_scale(place(same), floats(factor), x.numel(), dtype_of(x), stream_of(x)));
  return same;
}

Tensors CrossEntropyBackward(const Tensor& hidden, const Tensor& weight, const Tensor& hidden_grad,
                             const Tensor& weight_grad, const Tensor& loss_grad, bool, bool, bool hidden_asked,
                             bool weight_asked) {
  return {hidden_asked ? scaled(hidden_grad, loss_grad) : unasked(hidden),
          weight_asked ? scaled(weight_grad, loss_grad) : unasked(weight)};
}

// The gradients are computed when the loss's own is known, from logits that are computed once more: in float16 those of
// a loss that is not scaled vanish.
Tensors LateCrossEntropyForward(const Tensor& hidden, const Tensor& weight, const Tensor& target, const Tensor& scale,
                                bool transposed, bool, bool) {
  Tensor statistics = allocate_floats({3, rows(hidden)}, hidden);
  const Tensor factor = factor_of(weight, hidden);
  PaddlemixCrossEntropy op =
      described(hidden, weight, factor, target, scale, float_place(statistics), transposed, PADDLEMIX_STATISTICS);
  compute(op, hidden);
  return {cost_of(statistics, scale), statistics};
}

Tensors LateCrossEntropyBackward(const Tensor& hidden, const Tensor& weight, const Tensor& target, const Tensor& scale,
                                 const Tensor& statistics, const Tensor& loss_grad, bool transposed, bool hidden_asked,
                                 bool weight_asked) {
  Tensor hidden_grad = hidden_asked ? allocate_like(hidden) : unasked(hidden);
  Tensor weight_grad = weight_asked ? allocate_like(weight) : unasked(weight);
  const Tensor factor = factor_of(weight, hidden), scaled = paddle::experimental::multiply(scale, loss_grad);
  PaddlemixCrossEntropy op = described(hidden, weight, factor, target, scaled, const_cast<float*>(floats(statistics)),
                                       transposed, PADDLEMIX_GRADIENTS);  // which leaves the statistics as they are
  op.hidden_grad = hidden_asked ? place(hidden_grad) : nullptr;
  op.weight_grad = weight_asked ? place(weight_grad) : nullptr;
  compute(op, hidden);
  return {hidden_grad, weight_grad};
}

}  // namespace
}  // namespace paddlemix

using paddle::Grad;

PD_BUILD_OP(paddlemix_cuda_linear_cross_entropy)
    .Inputs({"Hidden", "Weight", "Target", "Scale"})
    .Outputs({"Loss", "HiddenGrad", "WeightGrad"})
    .Attrs({"transposed: bool", "rounded: bool", "hidden_asked: bool", "weight_asked: bool"})
    .SetKernelFn(PD_KERNEL(paddlemix::CrossEntropyForward));
PD_BUILD_GRAD_OP(paddlemix_cuda_linear_cross_entropy)
    .Inputs({"Hidden", "Weight", "HiddenGrad", "WeightGrad", Grad("Loss")})
    .Outputs({Grad("Hidden"), Grad("Weight")})
    .Attrs({"transposed: bool", "rounded: bool", "hidden_asked: bool", "weight_asked: bool"})
    .SetKernelFn(PD_KERNEL(paddlemix::CrossEntropyBackward));

// CPUs have none.
PD_BUILD_OP(paddlemix_cuda_late_linear_cross_entropy)
    .Inputs({"Hidden", "Weight", "Target", "Scale"})
    .Outputs({"Loss", "Statistics"})
    .Attrs({"transposed: bool", "hidden_asked: bool", "weight_asked: bool"})
    .SetKernelFn(PD_KERNEL(paddlemix::LateCrossEntropyForward));
PD_BUILD_GRAD_OP(paddlemix_cuda_late_linear_cross_entropy)
    .Inputs({"Hidden", "Weight", "Target", "Scale", "Statistics", Grad("Loss")})
    .Outputs({Grad("Hidden"), Grad("Weight")})
    .Attrs({"transposed: bool", "hidden_asked: bool", "weight_asked: bool"})
    .SetKernelFn(PD_KERNEL(paddlemix::LateCrossEntropyBackward));
