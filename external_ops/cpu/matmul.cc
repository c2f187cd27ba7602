#include "paddlemix/matmul.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <tuple>
#include <unordered_map>

#include "dnnl.hpp"
#include "paddlemix/threads.h"

namespace paddlemix {
namespace {

using dnnl::memory;

// Products of fewer multiplications are left to the calling thread: they take some 20 us. It does not ask whether threads
// are awake, since sums may be divided otherwise among threads, and results must not depend on who else is busy.
int threads_of_product(const Matmul& shape) {
  constexpr int64_t kWorthASecond = 1 << 21;
  return shape.m * shape.k * shape.n < kWorthASecond ? 1 : num_threads();
}

struct Prepared {
  dnnl::matmul primitive;
  memory a, b, bias, c, scratchpad;
};

dnnl::engine& engine() {
  static dnnl::engine cpu = [] {
    dnnl::set_primitive_cache_capacity(32);  // for what Paddle itself computes with oneDNN; `prepared` keeps ours
    return dnnl::engine(dnnl::engine::kind::cpu, 0);
  }();
  return cpu;
}

memory::desc matrix(int64_t rows, int64_t columns, memory::data_type type, bool transposed) {
  return {{rows, columns}, type, transposed ? memory::format_tag::ba : memory::format_tag::ab};
}

dnnl::primitive_attr attributes(const Matmul& shape) {
  dnnl::post_ops after;
  if (shape.add) after.append_sum(1.0f);
  if (shape.activation == Activation::kGelu) after.append_eltwise(dnnl::algorithm::eltwise_gelu_erf, 0.0f, 0.0f);
  if (shape.activation == Activation::kQuickGelu) after.append_eltwise(dnnl::algorithm::eltwise_swish, 1.702f, 0.0f);
  dnnl::primitive_attr attributes;
  attributes.set_post_ops(after);
  // oneDNN's own way, as Paddle builds it, is memory of each primitive's own for as long as that lives.
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attributes;
}

Prepared prepare(const Matmul& shape, const Operand& a, const Operand& b) {
  const auto type = a.is_rounded() ? memory::data_type::bf16 : memory::data_type::f32;
  const auto a_desc = matrix(shape.m, shape.k, type, a.transposed());
  const auto b_desc = matrix(shape.k, shape.n, type, b.transposed());
  const memory::desc c_desc({shape.m, shape.n}, memory::data_type::f32, memory::dims{shape.stride(), 1});
  const auto bias_desc = shape.bias ? matrix(1, shape.n, memory::data_type::f32, false) : memory::desc();
  const dnnl::matmul::primitive_desc description(engine(), a_desc, b_desc, bias_desc, c_desc, attributes(shape));
  const auto hold = [](const memory::desc& desc) { return memory(desc, engine(), nullptr); };
  return {dnnl::matmul(description),
          hold(a_desc),
          hold(b_desc),
          shape.bias ? hold(bias_desc) : memory(),
          hold(c_desc),
          hold(description.scratchpad_desc())};
}

// oneDNN takes some hundred microseconds to prepare a product, and a model repeats a few shapes. Only about as many are
// kept as one step needs: batches of every length bring new ones, and small pieces of memory that live long keep
// the heap between them from being used again. With 1024 kept, training the demo grew from 0.6 GiB to 1.7 in 200
// steps and 2.7 in 2000; with 64 it stays at 1.1 and is 7 % faster.
Prepared& prepared(const Matmul& shape, const Operand& a, const Operand& b) {
  const auto key = std::make_tuple(shape.m, shape.k, shape.n, shape.bias != nullptr, static_cast<int>(shape.activation),
                                   shape.add, shape.stride(), a.transposed(), b.transposed(), a.is_rounded(),
                                   threads_of_product(shape));
  static thread_local std::map<decltype(key), Prepared> known;
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  constexpr std::size_t kMost = 64;
  if (known.size() >= kMost) known.clear();
  return known.emplace(key, prepare(shape, a, b)).first->second;
}

}  // namespace

ProductPaths& product_paths() {
  static ProductPaths paths;
  return paths;
}

Operand::Operand(const float* data, bool transposed, int64_t count, Rounding rounding)
    : wide_(data), transposed_(transposed) {
  if (rounding == Rounding::kNone) return;
  const auto rounded = [&](auto copy, auto round) {
    auto* const to = copy->get();
    parallel_ranges(count, 1 << 15, [&](int64_t begin, int64_t end) { round(data + begin, to + begin, end - begin); });
    memory_ = copy;
    return to;
  };
  if (rounding == Rounding::kWidened)
    wide_ = rounded(std::make_shared<Scratch<float>>(count), kernels().round_to_bfloat16);
  else
    rounded_ = rounded(std::make_shared<Scratch<uint16_t>>(count), kernels().to_bfloat16);
}

Operand Operand::turned() const {
  Operand other = *this;
  other.transposed_ = !transposed_;
  return other;
}

Operand Operand::from(int64_t numbers) const {
  Operand other = *this;
  other.wide_ += numbers;
  if (rounded_) other.rounded_ += numbers;
  return other;
}

int64_t sums_of_few_rows(int64_t rows, int64_t in, int64_t columns) {
  constexpr int64_t kRows = 64;  // of less, adding up takes more than a thirtieth of the time
  constexpr int64_t kMost = 32, kFew = 4, kLong = 8192;
  return rows > kFew || columns > kLong ? 1 : std::clamp<int64_t>(in / kRows, 1, kMost);
}

FewRows part_of_few_rows(const FewRows& whole, int64_t sum, int64_t sums, float* y) {
  const int64_t begin = whole.in * sum / sums, end = whole.in * (sum + 1) / sums;
  FewRows part = whole;
  part.x += begin, part.weight += begin * whole.columns, part.in = end - begin;
  part.y = y;
  if (sum) part.bias = nullptr;
  return part;
}

void matmul_by_registers(const Matmul& shape, const Operand& a, const Operand& b, float* c) {
  constexpr int64_t kWork = 1 << 16;  // multiplications that are worth waking a thread for
  const FewRows whole{a.wide(), b.wide(), shape.bias, c, shape.m, shape.k, shape.n, shape.k, shape.stride()};
  const int64_t sums = sums_of_few_rows(shape.m, shape.k, shape.n);
  if (sums == 1) {
    const int64_t grain = std::max<int64_t>(64, kWork / std::max<int64_t>(shape.k * shape.m, 1));
    parallel_ranges(shape.n, grain,
                    [&](int64_t begin, int64_t end) { kernels().few_rows_matmul(whole, begin, end); });
  } else {
    const int64_t y_size = shape.m * whole.y_stride;
    const Scratch<float> others((sums - 1) * y_size);
    parallel_ranges(
        sums, 1,
        [&](int64_t first, int64_t last) {
          for (int64_t sum = first; sum < last; ++sum) {
            float* const y = sum ? others + (sum - 1) * y_size : c;
            kernels().few_rows_matmul(part_of_few_rows(whole, sum, sums, y), 0, shape.n);
          }
        },
        parts_of(shape.m * shape.k * shape.n / sums, kWork));
    for (int64_t row = 0; row < shape.m; ++row)
      for (int64_t sum = 0; sum + 1 < sums; ++sum) {
        const float* const other = others + sum * y_size + row * whole.y_stride;
        for (int64_t i = 0; i < shape.n; ++i) c[row * whole.y_stride + i] += other[i];
      }
  }
  const int64_t count = shape.m * shape.n;
  if (shape.activation != Activation::kNone) kernels().activate(shape.activation, c, c, count);
}

void matmul(const Matmul& shape, const Operand& a, const Operand& b, float* c) {
  if (!shape.m || !shape.n) return;
  count_product(shape, a, b);
  const ProductPaths& paths = product_paths();
  const bool fits_registers = !a.transposed() && !b.transposed() && !a.is_rounded() && !shape.add;
  if (!shape.k || (shape.m <= paths.few_rows && fits_registers)) return matmul_by_registers(shape, a, b, c);
  if (paths.mkl && !a.is_rounded() && matmul_by_mkl(shape, a, b, c)) return;
  matmul_by_onednn(shape, a, b, c);
}

void matmul_by_onednn(const Matmul& shape, const Operand& a, const Operand& b, float* c) {
  const OpenMPThreads threads(threads_of_product(shape));
  static thread_local dnnl::stream stream(engine());
  Prepared& p = prepared(shape, a, b);
  p.a.set_data_handle(const_cast<void*>(a.data()));
  p.b.set_data_handle(const_cast<void*>(b.data()));
  p.c.set_data_handle(c);
  const Scratch<char> scratchpad(p.scratchpad.get_desc().get_size());
  p.scratchpad.set_data_handle(scratchpad);
  std::unordered_map<int, memory> arguments{
      {DNNL_ARG_SRC, p.a}, {DNNL_ARG_WEIGHTS, p.b}, {DNNL_ARG_DST, p.c}, {DNNL_ARG_SCRATCHPAD, p.scratchpad}};
  if (shape.bias) {
    p.bias.set_data_handle(const_cast<float*>(shape.bias));
    arguments.emplace(DNNL_ARG_BIAS, p.bias);
  }
  p.primitive.execute(stream, arguments);
}

}  // namespace paddlemix
