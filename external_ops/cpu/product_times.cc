// What a process asks about its products: how fast each way to compute one is here, which ways are taken, and which
// products a step consisted of.
#include <time.h>

#include <atomic>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "dnnl.hpp"
#include "paddlemix/matmul.h"
#include "paddlemix/threads.h"

namespace paddlemix {
namespace {

// As `paddlemix/ops/probing/` numbers them.
enum class Path : int { kOneDnn = 0, kMkl = 1, kRegisters = 2, kBfloat16 = 3, kWidened = 4 };

Rounding rounding_of(Path path) {
  return path == Path::kBfloat16 ? Rounding::kBfloat16 : path == Path::kWidened ? Rounding::kWidened : Rounding::kNone;
}

bool multiply(Path path, const Matmul& shape, const Operand& a, const Operand& b, float* c) {
  if (path == Path::kMkl || (path == Path::kWidened && product_paths().mkl)) return matmul_by_mkl(shape, a, b, c);
  if (path == Path::kRegisters)
    matmul_by_registers(shape, a, b, c);
  else
    matmul_by_onednn(shape, a, b, c);
  return true;
}

double now(clockid_t clock = CLOCK_MONOTONIC) {
  timespec time;
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// m, k, n, a transposed, b transposed, from bfloat16, how it is shared, bytes of the right factor.
using Key = std::tuple<int64_t, int64_t, int64_t, bool, bool, bool, Sharing, int64_t>;

int64_t bytes_of(int64_t k, int64_t n) { return static_cast<int64_t>(sizeof(float)) * k * n; }

std::atomic<bool> listens{false};
std::mutex counting;
std::map<Key, int64_t> counted;

void count(const Key& key, int64_t times) {
  const std::lock_guard<std::mutex> lock(counting);
  counted[key] += times;
}

}  // namespace

void count_product(const Matmul& shape, const Operand& a, const Operand& b) {
  if (listens.load(std::memory_order_relaxed))
    count({shape.m, shape.k, shape.n, a.transposed(), b.transposed(), a.is_rounded(), Sharing::kTogether,
           bytes_of(shape.k, shape.n)},
          1);
}

void count_product(int64_t m, int64_t k, int64_t n, int64_t times, Sharing sharing, int64_t bytes) {
  if (listens.load(std::memory_order_relaxed))
    count({m, k, n, false, false, false, sharing, bytes ? bytes : bytes_of(k, n)}, times);
}

}  // namespace paddlemix

extern "C" {

#define PADDLEMIX_EXPORT __attribute__((visibility("default")))

PADDLEMIX_EXPORT void paddlemix_choose_products(int mkl, int widened, int64_t few_rows) {
  paddlemix::ProductPaths& paths = paddlemix::product_paths();
  paths.mkl = mkl && paddlemix::has_mkl();
  paths.widened = widened;
  paths.few_rows = few_rows;
}

// The seconds of `runs` products, the first of which prepares, by the wall clock and of this thread's own time; stops
// behind the one that reaches `most` seconds in all. With `rounds` the rounding of both operands counts as a layer pays
// for it. Returns how many, 0 where there is no such path.
PADDLEMIX_EXPORT int paddlemix_time_product(int path, int64_t m, int64_t k, int64_t n, int a_transposed, int b_transposed,
                                            int rounds, int runs, double most, double* seconds, double* own_seconds) {
  using namespace paddlemix;
  const std::vector<float> a(m * k, 1.0f), b(k * n, 1.0f);
  std::vector<float> c(m * n);
  const Path by = static_cast<Path>(path);
  const auto left = [&] { return Operand(a.data(), a_transposed, m * k, rounding_of(by)); };
  const auto right = [&] { return Operand(b.data(), b_transposed, k * n, rounding_of(by)); };
  try {
    const Operand kept_left = left(), kept_right = right();
    const double begin = now();
    int done = 0;
    while (done < runs && (!done || now() - begin < most)) {
      const double start = now(), own_start = now(CLOCK_THREAD_CPUTIME_ID);
      const bool is_there = rounds ? multiply(by, {m, k, n}, left(), right(), c.data())
                                   : multiply(by, {m, k, n}, kept_left, kept_right, c.data());
      if (!is_there) return 0;
      own_seconds[done] = now(CLOCK_THREAD_CPUTIME_ID) - own_start;
      seconds[done++] = now() - start;
    }
    return done;
  } catch (const dnnl::error&) {
    return 0;  // oneDNN has no code for bfloat16 on this processor
  }
}

// The seconds in which all threads read so many bytes once, `runs` times.
PADDLEMIX_EXPORT void paddlemix_time_reading(int64_t bytes, int runs, double* seconds) {
  using namespace paddlemix;
  const int64_t numbers = bytes / sizeof(float);
  const std::vector<float> memory(numbers, 1.0f);
  std::atomic<int64_t> sink{0};
  for (int run = 0; run < runs; ++run) {
    const double start = now();
    parallel_ranges(numbers, 1 << 14, [&](int64_t begin, int64_t end) {
      constexpr int64_t kLanes = 64;
      float sums[kLanes] = {};
      for (int64_t i = begin; i + kLanes <= end; i += kLanes)
        for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += memory[i + lane];
      for (const float sum : sums) sink += static_cast<int64_t>(sum);
    });
    seconds[run] = now() - start;
  }
}

// Begins to count products anew, or ends it and keeps what was counted.
PADDLEMIX_EXPORT void paddlemix_count_products(int begins) {
  using namespace paddlemix;
  const std::lock_guard<std::mutex> lock(counting);
  if (begins) counted.clear();
  listens = begins;
}

// Writes nine numbers a shape, the last of which says how often it was computed, to at most `room` shapes; returns how
// many there are.
PADDLEMIX_EXPORT int64_t paddlemix_counted_products(int64_t* rows, int64_t room) {
  using namespace paddlemix;
  const std::lock_guard<std::mutex> lock(counting);
  int64_t written = 0;
  for (const auto& [key, times] : counted) {
    if (written++ >= room) continue;
    const auto& [m, k, n, a_transposed, b_transposed, rounded, sharing, bytes] = key;
    for (const int64_t value : {m, k, n, int64_t{a_transposed}, int64_t{b_transposed}, int64_t{rounded},
                                static_cast<int64_t>(sharing), bytes, times})
      *rows++ = value;
  }
  return static_cast<int64_t>(counted.size());
}
}
