// The CPU's op of the same signature is in cpu/bind_linear.cc.
#include "binding.h"

namespace paddlemix {
namespace {

// The gradients are computed with the loss, while the logits are at hand, and held until they are asked for. `rounded`
// is the CPU's: products are computed from the dtype that is given.
Tensors CrossEntropyForward(const Tensor& hidden, const Tensor& weight, const Tensor& target, const Tensor& scale,
                            bool transposed, bool, bool hidden_asked, bool weight_asked) {
  const int64_t tokens = rows(hidden), vocabulary = weight.shape()[transposed ? 0 : 1];
  Tensor loss = allocate_floats({}, hidden), statistics = allocate_floats({3, tokens}, hidden);
  Tensor hidden_grad = hidden_asked ? allocate_like(hidden) : allocate_floats({0}, hidden);
  Tensor weight_grad = weight_asked ? allocate_like(weight) : allocate_floats({0}, hidden);
  const int phases = PADDLEMIX_STATISTICS | (hidden_asked || weight_asked ? PADDLEMIX_GRADIENTS : 0);
  PaddlemixCrossEntropy op{numbers(hidden), numbers(weight), target.data<int64_t>(), floats(scale),
                           float_place(statistics), place(hidden_grad), place(weight_grad), nullptr, tokens,
                           last(hidden), vocabulary, 0, 0, transposed, phases};
  Tensor scratch = allocate_bytes(succeeded(paddlemix_cuda_cross_entropy_scratch(&op, dtype_of(hidden))), hidden);
  op.scratch = place(scratch);
  succeeded(paddlemix_cuda_linear_cross_entropy(&op, dtype_of(hidden), stream_of(hidden)));
  succeeded(paddlemix_cuda_cost(floats(statistics), floats(scale), tokens, float_place(loss), stream_of(hidden)));
  return {loss, hidden_grad, weight_grad};
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
