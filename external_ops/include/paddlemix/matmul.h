// Products of matrices by oneDNN, in float32 or from operands rounded to bfloat16; sums and results are float32.
#pragma once

#include <cstdint>
#include <memory>

#include "paddlemix/kernels.h"
#include "paddlemix/scratch.h"

namespace paddlemix {

// A matrix of float32, rows dense; `transposed` reads it the other way round.
class Operand {
 public:
  // `rounded` makes a copy in bfloat16 of its `count` numbers.
  Operand(const float* data, bool transposed, int64_t count = 0, bool rounded = false);

  Operand turned() const;
  // The same memory `numbers` further on.
  Operand from(int64_t numbers) const;

  const void* data() const { return rounded_ ? static_cast<const void*>(rounded_) : wide_; }
  const float* wide() const { return wide_; }
  bool transposed() const { return transposed_; }
  bool is_rounded() const { return rounded_ != nullptr; }

 private:
  const float* wide_;
  const uint16_t* rounded_ = nullptr;
  bool transposed_;
  std::shared_ptr<Scratch<uint16_t>> memory_;
};

// c[m, n] = activation(a[m, k] b[k, n] + bias[n]), or added to what is in c. Both operands are rounded, or none.
struct Matmul {
  int64_t m, k, n;
  const float* bias = nullptr;
  Activation activation = Activation::kNone;
  bool add = false;
};

void matmul(const Matmul& shape, const Operand& a, const Operand& b, float* c);

// How many times as fast as a product in float32 one from bfloat16 is here, measured at the first call (10 ms or so); 0
// where the processor has no instructions for it. Having them is not enough: one thread of an EPYC 9004 computes 400
// GFLOP/s from bfloat16 and 200 in float32, one of a Xeon of family 6, model 207, 78 and 150.
double bfloat16_gain();

}  // namespace paddlemix
