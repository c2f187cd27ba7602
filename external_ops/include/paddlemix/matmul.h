// Products of matrices in float32, or from operands rounded to bfloat16; sums and results are float32. What computes
// them is chosen by measuring (`paddlemix/ops/probing/`): oneDNN, Paddle's MKL or, for few rows, our own registers.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "paddlemix/kernels.h"
#include "paddlemix/scratch.h"

namespace paddlemix {

// How an operand is rounded to bfloat16: not at all, held in bfloat16, or held in float32, which any processor multiplies.
enum class Rounding { kNone, kBfloat16, kWidened };

// What computes products, for the whole process.
struct ProductPaths {
  std::atomic<bool> mkl{false};          // float32 ones; oneDNN else
  std::atomic<bool> widened{false};      // rounded operands are held in float32
  std::atomic<int64_t> few_rows{4};      // up to this many rows our own registers read the weights faster
};

ProductPaths& product_paths();

// How operands of products from bfloat16 are rounded here.
inline Rounding rounding(bool rounded) {
  if (!rounded) return Rounding::kNone;
  return product_paths().widened ? Rounding::kWidened : Rounding::kBfloat16;
}

// Rows from which on they are rounded: rounding a weight takes as long as multiplying it with a few dozen rows.
constexpr int64_t kFewestRoundedRows = 32;

// A matrix of float32, rows dense; `transposed` reads it the other way round.
class Operand {
 public:
  // Rounding makes a copy of its `count` numbers.
  Operand(const float* data, bool transposed, int64_t count = 0, Rounding rounding = Rounding::kNone);

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
  std::shared_ptr<void> memory_;
};

// c[m, n] = activation(a[m, k] b[k, n] + bias[n]), or added to what is in c. Both operands are rounded, or none. Rows of c
// may stand apart where there is no activation.
struct Matmul {
  int64_t m, k, n;
  const float* bias = nullptr;
  Activation activation = Activation::kNone;
  bool add = false;
  int64_t c_stride = 0;  // from one row of c to the next; 0 for n

  int64_t stride() const { return c_stride ? c_stride : n; }
};

void matmul(const Matmul& shape, const Operand& a, const Operand& b, float* c);

// Into how many sums, of some of the weight's rows each, the product of a few rows with a weight is divided, which are
// then added up; they do not depend on how many threads there are. A thread reads 9 GB/s where it takes some columns of
// all rows of a weight, and 20 where it takes whole rows, as they lie (Zen 4). 1: columns are shared, since there are so
// many that each thread has long pieces of rows, or since reading is not what takes the time.
int64_t sums_of_few_rows(int64_t rows, int64_t in, int64_t columns);
// The product that makes one of them.
FewRows part_of_few_rows(const FewRows& whole, int64_t sum, int64_t sums, float* y);

// The same by one of them, whatever was chosen. oneDNN's raises dnnl::error where it has no code for the dtype.
void matmul_by_onednn(const Matmul& shape, const Operand& a, const Operand& b, float* c);
void matmul_by_registers(const Matmul& shape, const Operand& a, const Operand& b, float* c);
// False, and nothing done, where there is no MKL or a side is longer than its numbers.
bool matmul_by_mkl(const Matmul& shape, const Operand& a, const Operand& b, float* c);
bool has_mkl();

// How a product is computed: by all threads, or one of many that each thread takes for itself, as attention's heads are;
// a causal mask hides half of some.
enum class Sharing : int { kTogether = 0, kAlone = 1, kAloneHalf = 2 };

// A step's products are counted while somebody listens. `bytes` are those of the right factor, 0 for float32's.
void count_product(const Matmul& shape, const Operand& a, const Operand& b);
void count_product(int64_t m, int64_t k, int64_t n, int64_t times, Sharing sharing, int64_t bytes = 0);

}  // namespace paddlemix
