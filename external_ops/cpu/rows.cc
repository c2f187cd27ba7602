// The row kernels on all threads.
#include <cstring>
#include <vector>

#include "paddlemix/ops.h"
#include "paddlemix/threads.h"

namespace paddlemix {
namespace {

// The fewest numbers for a thread: a few microseconds of the cheapest work.
constexpr int64_t kGrain = 1 << 14;
// An exponential and a division each take four times as long.
constexpr int64_t kActivationGrain = kGrain / 4;

int64_t row_grain(int64_t size) { return std::max<int64_t>(1, kGrain / std::max<int64_t>(size, 1)); }

template <typename Op, typename Kernel>
void by_rows(const Op& op, Kernel kernel, int64_t rows, int64_t size) {
  parallel_ranges(rows, row_grain(size), [&](int64_t begin, int64_t end) { kernel(op, begin, end); });
}

// Sums over rows are taken part by part, the parts the same for any number of threads, so that the result is too.
int64_t sum_parts(int64_t rows, int64_t size) {
  constexpr int64_t kMost = 16;
  return std::max<int64_t>(1, std::min(kMost, rows / row_grain(size)));
}

// Calls `work(part, begin, end)` for each part of the rows, which are `size` numbers each.
template <typename Work>
void by_parts(int64_t rows, int64_t size, int64_t parts, const Work& work) {
  const auto some = [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) work(part, rows * part / parts, rows * (part + 1) / parts);
  };
  parallel_ranges(parts, 1, some, parts_of(rows / parts * size, kGrain));
}

void add_parts(const std::vector<float>& sums, float* y, int64_t parts, int64_t size) {
  kernels().sum_rows(sums.data(), y, parts, size, 0, size);
}

template <typename Work>
void by_elements(int64_t count, const Work& work) {
  parallel_ranges(count, kActivationGrain, [&](int64_t begin, int64_t end) { work(begin, end - begin); });
}

}  // namespace

void rms_norm(const RmsNorm& op, int64_t rows) { by_rows(op, kernels().rms_norm, rows, op.size); }

void rms_norm_grad(const RmsNormGrad& op, int64_t rows) {
  const int64_t parts = sum_parts(rows, op.size);
  std::vector<float> sums(parts * op.size);
  by_parts(rows, op.size, parts, [&](int64_t part, int64_t begin, int64_t end) {
    RmsNormGrad share = op;
    share.weight_grad = sums.data() + part * op.size;
    kernels().rms_norm_grad(share, begin, end);
  });
  add_parts(sums, op.weight_grad, parts, op.size);
}

void layer_norm(const LayerNorm& op, int64_t rows) { by_rows(op, kernels().layer_norm, rows, op.size); }

void layer_norm_grad(const LayerNormGrad& op, int64_t rows) {
  const int64_t parts = sum_parts(rows, op.size);
  std::vector<float> weight(parts * op.size), bias(parts * op.size);
  by_parts(rows, op.size, parts, [&](int64_t part, int64_t begin, int64_t end) {
    LayerNormGrad share = op;
    share.weight_grad = weight.data() + part * op.size;
    share.bias_grad = bias.data() + part * op.size;
    kernels().layer_norm_grad(share, begin, end);
  });
  add_parts(weight, op.weight_grad, parts, op.size);
  add_parts(bias, op.bias_grad, parts, op.size);
}

void rotate(const Rotate& op, int64_t tokens) { by_rows(op, kernels().rotate, tokens, op.heads * op.size); }

void swiglu(const float* gate, const float* up, float* y, int64_t count) {
  by_elements(count, [&](int64_t i, int64_t n) { kernels().swiglu(gate + i, up + i, y + i, n); });
}

void swiglu_grad(const float* gate, const float* up, const float* y_grad, float* gate_grad, float* up_grad,
                 int64_t count) {
  by_elements(count, [&](int64_t i, int64_t n) {
    kernels().swiglu_grad(gate + i, up + i, y_grad + i, gate_grad + i, up_grad + i, n);
  });
}

void activate(Activation kind, const float* x, float* y, int64_t count) {
  by_elements(count, [&](int64_t i, int64_t n) { kernels().activate(kind, x + i, y + i, n); });
}

void activate_grad(Activation kind, const float* x, const float* y_grad, float* x_grad, int64_t count) {
  by_elements(count, [&](int64_t i, int64_t n) { kernels().activate_grad(kind, x + i, y_grad + i, x_grad + i, n); });
}

void copy_rows(const float* x, int64_t x_stride, float* y, int64_t y_stride, int64_t rows, int64_t width) {
  parallel_ranges(rows, row_grain(width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      std::memcpy(y + row * y_stride, x + row * x_stride, sizeof(float) * width);
  });
}

void sum_rows(const float* x, float* y, int64_t rows, int64_t columns) {
  parallel_ranges(columns, row_grain(rows), [&](int64_t begin, int64_t end) {
    kernels().sum_rows(x, y, rows, columns, begin, end);
  });
}

}  // namespace paddlemix
