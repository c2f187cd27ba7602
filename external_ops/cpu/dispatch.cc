// Chooses the kernels that this processor runs, and holds the number of threads.
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "paddlemix/kernels.h"
#include "paddlemix/threads.h"

namespace paddlemix {

namespace plain {
const Kernels& kernels();
}

#if defined(__x86_64__)
namespace avx2 {
const Kernels& kernels();
}
namespace avx512 {
const Kernels& kernels();
}

static const Kernels& choose() {
  // For tests of the slower paths; a set that the processor lacks is not taken.
  const char* wanted = std::getenv("PADDLEMIX_OPS_ISA");
  const auto allowed = [&](const char* name) { return !wanted || !std::strcmp(wanted, name); };
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512vl");
  if (has_avx512 && allowed("avx512")) return avx512::kernels();
  if (has_avx2 && (allowed("avx2") || allowed("avx512"))) return avx2::kernels();
  return plain::kernels();
}
#else
static const Kernels& choose() { return plain::kernels(); }
#endif

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

static std::atomic<int> threads{1};

int num_threads() { return threads; }

void set_num_threads(int count) { threads = count < 1 ? 1 : count; }

}  // namespace paddlemix
