// Linear layers, and the cross entropy of a linear layer's logits, which are held a few rows at a time.
#include <algorithm>
#include <vector>

#include "paddlemix/ops.h"
#include "paddlemix/threads.h"

namespace paddlemix {
namespace {

// Bytes of logits that are held at once. Each piece of rows reads and writes the weight's gradient once.
constexpr int64_t kLogitBytes = int64_t{96} << 20;

Rounding rounding_of(const Linear& op) { return rounding(op.rounded && op.rows >= kFewestRoundedRows); }

}  // namespace

void linear(const Linear& op, const float* x, const float* weight, const float* bias, float* before, float* y) {
  const Rounding rounded = rounding_of(op);
  const Operand left(x, false, op.rows * op.in, rounded), right(weight, op.weight_transposed, op.in * op.out, rounded);
  if (!before) return matmul({op.rows, op.in, op.out, bias, op.activation}, left, right, y);
  matmul({op.rows, op.in, op.out, bias}, left, right, before);
  activate(op.activation, before, y, op.rows * op.out);
}

void linear_grad(const Linear& op, const float* x, const float* weight, const float* before, const float* y_grad,
                 float* x_grad, float* weight_grad, float* bias_grad) {
  const Scratch<float> inner(before ? op.rows * op.out : 0);
  if (before) {
    activate_grad(op.activation, before, y_grad, inner, op.rows * op.out);
    y_grad = inner;
  }
  if (bias_grad) sum_rows(y_grad, bias_grad, op.rows, op.out);
  if (!x_grad && !weight_grad) return;
  const Rounding rounded = rounding_of(op);
  const Operand up(y_grad, false, op.rows * op.out, rounded);
  if (x_grad) {
    const Operand right(weight, op.weight_transposed, op.in * op.out, rounded);
    matmul({op.rows, op.out, op.in}, up, right.turned(), x_grad);
  }
  if (weight_grad) {
    const Operand left(x, false, op.rows * op.in, rounded);
    if (op.weight_transposed)
      matmul({op.out, op.rows, op.in}, up.turned(), left, weight_grad);
    else
      matmul({op.in, op.rows, op.out}, left.turned(), up, weight_grad);
  }
}

float linear_cross_entropy(const LinearCrossEntropy& op, const float* hidden, const float* weight,
                           const int64_t* target, const float* scale, float* hidden_grad, float* weight_grad) {
  const int64_t size = op.size, vocabulary = op.vocabulary;
  const int64_t at_once = std::min(op.rows, std::max<int64_t>(16, kLogitBytes / (4 * std::max<int64_t>(vocabulary, 1))));
  const Rounding rounded = rounding(op.rounded);
  const Operand head(weight, op.weight_transposed, size * vocabulary, rounded);
  const Operand states(hidden, false, op.rows * size, rounded);
  const Scratch<float> logits(at_once * vocabulary);
  std::vector<float> cost(op.rows);
  const bool with_gradient = hidden_grad || weight_grad;
  for (int64_t first = 0; first < op.rows; first += at_once) {
    const int64_t rows = std::min(at_once, op.rows - first);
    const Operand some = states.from(first * size);
    matmul({rows, size, vocabulary}, some, head, logits);
    const CrossEntropy entropy{logits, target + first, scale + first, cost.data() + first, vocabulary, with_gradient};
    parallel_ranges(rows, 1 + (1 << 14) / vocabulary,
                    [&](int64_t begin, int64_t end) { kernels().cross_entropy(entropy, begin, end); },
                    parts_of(vocabulary, kPartNumbers));
    if (!with_gradient) continue;
    const Operand grad(logits, false, rows * vocabulary, rounded);
    if (hidden_grad) matmul({rows, vocabulary, size}, grad, head.turned(), hidden_grad + first * size);
    Matmul shape{size, rows, vocabulary};
    shape.add = first > 0;
    if (weight_grad && !op.weight_transposed) matmul(shape, some.turned(), grad, weight_grad);
    std::swap(shape.m, shape.n);
    if (weight_grad && op.weight_transposed) matmul(shape, grad.turned(), some, weight_grad);
  }
  double total = 0.0;
  for (int64_t row = 0; row < op.rows; ++row) total += static_cast<double>(cost[row]) * scale[row];
  return static_cast<float>(total);
}

}  // namespace paddlemix
