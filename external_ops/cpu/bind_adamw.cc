#include <cmath>
#include <stdexcept>
#include <string>

#include "binding.h"
#include "paddlemix/ops.h"

namespace paddlemix {
namespace {

float* overwritten(const Tensor& x) { return const_cast<float*>(numbers(x)); }

// To be asked before anything is overwritten: Python looks at the first tensor alone, which takes a microsecond each.
void check_kind(const Tensors& tensors) {
  for (const Tensor& x : tensors)
    if (x.dtype() != paddle::DataType::FLOAT32 || !x.is_cpu())
      throw std::invalid_argument("a tensor is not float32 in the CPU's memory, as the first one is");
}

void check_sizes(const Tensors& parameters, const Tensors& others) {
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (others[i].numel() != parameters[i].numel())
      throw std::invalid_argument("a parameter of AdamW has " + std::to_string(parameters[i].numel()) +
                                  " numbers, its gradient or a moment " + std::to_string(others[i].numel()));
}

Tensors SquaredNorms(const Tensors& x) {
  check_kind(x);
  std::vector<const float*> places;
  std::vector<int64_t> sizes;
  for (const Tensor& one : x) places.push_back(numbers(one)), sizes.push_back(one.numel());
  Tensor sums = paddle::experimental::empty({static_cast<int64_t>(x.size())}, paddle::DataType::FLOAT64,
                                            paddle::CPUPlace());
  squared_norms(places.data(), sizes.data(), x.size(), sums.data<double>());
  return {sums};
}

// Parameters, moments and powers are overwritten, of which Paddle is not told: it takes no leaf for an input that an
// op overwrites, not even where nobody wants gradients. The powers are float32[1], of the betas by the number of steps
// with this one.
Tensors AdamWForward(const Tensors& parameters, const Tensors& gradients, const Tensors& moments1,
                     const Tensors& moments2, const Tensors& powers1, const Tensors& powers2,
                     const std::vector<float>& rates, const std::vector<float>& decays,
                     const std::vector<float>& scales, float beta1, float beta2, float epsilon) {
  for (const Tensors* all : {&parameters, &gradients, &moments1, &moments2, &powers1, &powers2}) check_kind(*all);
  for (const Tensors* others : {&gradients, &moments1, &moments2}) check_sizes(parameters, *others);
  for (const Tensors* powers : {&powers1, &powers2})
    for (const Tensor& power : *powers)
      if (power.numel() != 1) throw std::invalid_argument("a power of AdamW's betas is not one number");
  std::vector<AdamW> steps;
  std::vector<int64_t> sizes;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    float *power1 = overwritten(powers1[i]), *power2 = overwritten(powers2[i]);
    // In float32, bit by bit as Paddle's own AdamW, so that runs go on as they began.
    const float deviation = std::sqrt(1.0f - *power2);
    AdamW step{};
    step.parameter = overwritten(parameters[i]), step.gradient = numbers(gradients[i]);
    step.moment1 = overwritten(moments1[i]), step.moment2 = overwritten(moments2[i]);
    step.scale = scales[i], step.beta1 = beta1, step.beta2 = beta2, step.decay = rates[i] * decays[i];
    step.rate = rates[i] * (deviation / (1.0f - *power1)), step.epsilon = epsilon * deviation;
    *power1 *= beta1, *power2 *= beta2;
    steps.push_back(step), sizes.push_back(parameters[i].numel());
  }
  adamw(steps.data(), sizes.data(), steps.size());
  return {allocate({0})};
}

}  // namespace
}  // namespace paddlemix

PD_BUILD_OP(paddlemix_squared_norms)
    .Inputs({paddle::Vec("X")})
    .Outputs({"Sums"})
    .SetKernelFn(PD_KERNEL(paddlemix::SquaredNorms));

PD_BUILD_OP(paddlemix_adamw)
    .Inputs({paddle::Vec("Parameters"), paddle::Vec("Gradients"), paddle::Vec("Moments1"), paddle::Vec("Moments2"),
             paddle::Vec("Powers1"), paddle::Vec("Powers2")})
    .Outputs({"Nothing"})
    .Attrs({"rates: std::vector<float>", "decays: std::vector<float>", "scales: std::vector<float>", "beta1: float",
            "beta2: float", "epsilon: float"})
    .SetKernelFn(PD_KERNEL(paddlemix::AdamWForward));
