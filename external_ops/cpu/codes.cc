// Products with weights that are held as codes: few rows straight from the codes, many by parts of the weight that are
// put into floating point where a cache holds them, and multiplied by whatever is fastest at that here.
#include "paddlemix/codes.h"

#include <algorithm>

#include "paddlemix/ops.h"
#include "paddlemix/threads.h"

namespace paddlemix {
namespace {

// More rows are multiplied faster by parts. Put together from the rates of this kernel, of unpacking and of the library's
// products on an EPYC (family 25, model 17): 8 rows take 0.33 ns a number of the weight by parts and 0.25 from the codes,
// 16 take 0.47 and 0.50.
constexpr int64_t kFewRows = 16;
// Numbers of a part: 2 MiB.
constexpr int64_t kPart = 1 << 19;

// Calls `work(begin, end)` on outputs, in steps that do not depend on the number of threads.
template <typename Work>
void in_steps(int64_t outputs, int64_t operations, const Work& work) {
  const int64_t steps = (outputs + kOutputStep - 1) / kOutputStep;
  const int64_t grain = std::max<int64_t>(1, kPartOperations / std::max<int64_t>(1, operations * kOutputStep));
  parallel_ranges(steps, grain, [&](int64_t begin, int64_t end) {
    work(begin * kOutputStep, std::min(end * kOutputStep, outputs));
  });
}

// Columns of rows of x, or of its gradient the other way round.
void reorder(const Codes& weight, int64_t rows, const float* from, float* to, bool back) {
  parallel_ranges(rows, 1 + kPartNumbers / weight.in, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t i = 0; i < weight.in; ++i)
        if (back)
          to[row * weight.in + weight.order[i]] = from[row * weight.in + i];
        else
          to[row * weight.in + i] = from[row * weight.in + weight.order[i]];
  });
}

// Outputs [first, first + count) of some columns, on all threads.
void unpack(const Codes& weight, int64_t first, int64_t count, int64_t first_column, int64_t columns, float* numbers) {
  in_steps(count, columns, [&](int64_t begin, int64_t end) {
    kernels().unpack_codes({&weight, first_column, columns, numbers + begin * columns}, first + begin, first + end);
  });
}

}  // namespace

int64_t bytes_of(const Codes& weight) {
  const int64_t numbers = weight.out * weight.in, blocks = (numbers + weight.block - 1) / weight.block;
  return numbers * weight.bits / 8 + static_cast<int64_t>(sizeof(float)) * blocks * (weight.zeros ? 2 : 1);
}

void coded_linear(const CodedRows& op, bool rounded) {
  const Codes& weight = *op.weight;
  if (op.rows <= kFewRows) {
    count_product(op.rows, weight.in, weight.out, 1, Sharing::kTogether, bytes_of(weight));
    return in_steps(weight.out, op.rows * weight.in,
                    [&](int64_t begin, int64_t end) { kernels().coded_rows(op, begin, end); });
  }
  const Rounding rounding_here = rounding(rounded && op.rows >= kFewestRoundedRows);
  const Scratch<float> ordered(weight.order ? op.rows * weight.in : 0);
  if (weight.order) reorder(weight, op.rows, op.x, ordered, false);
  const Operand x(weight.order ? ordered : op.x, false, op.rows * weight.in, rounding_here);
  const int64_t at_once = std::min(weight.out, std::max<int64_t>(1, kPart / weight.in / kOutputStep) * kOutputStep);
  const Scratch<float> numbers(at_once * weight.in);
  for (int64_t first = 0; first < weight.out; first += at_once) {
    const int64_t count = std::min(at_once, weight.out - first);
    unpack(weight, first, count, 0, weight.in, numbers);
    Matmul shape{op.rows, weight.in, count, op.bias ? op.bias + first : nullptr};
    shape.c_stride = op.y_stride;
    matmul(shape, x, Operand(numbers, true, count * weight.in, rounding_here), op.y + first);
  }
}

void coded_linear_grad(const Codes& weight, int64_t rows, const float* y_grad, bool rounded, float* x_grad) {
  const Rounding rounding_here = rounding(rounded && rows >= kFewestRoundedRows);
  const Scratch<float> ordered(weight.order ? rows * weight.in : 0);
  const Operand up(y_grad, false, rows * weight.out, rounding_here);
  const int64_t at_once = std::min(weight.in, std::max<int64_t>(1, kPart / weight.out / kColumnStep) * kColumnStep);
  const Scratch<float> numbers(at_once * weight.out);
  for (int64_t first = 0; first < weight.in; first += at_once) {
    const int64_t count = std::min(at_once, weight.in - first);
    unpack(weight, 0, weight.out, first, count, numbers);
    Matmul shape{rows, weight.out, count};
    shape.c_stride = weight.in;
    matmul(shape, up, Operand(numbers, false, weight.out * count, rounding_here),
           (weight.order ? ordered : x_grad) + first);
  }
  if (weight.order) reorder(weight, rows, ordered, x_grad, true);
}

}  // namespace paddlemix
