// Chooses the kernels that this processor runs, and holds the number of threads and how they compute.
#include <omp.h>

#include <atomic>

#include "paddlemix/instruction_set.h"
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

#endif

static const Kernels& choose() {
#if defined(__x86_64__)
  const InstructionSet best = best_instruction_set();
  if (best == InstructionSet::kAvx512) return avx512::kernels();
  if (best == InstructionSet::kAvx2) return avx2::kernels();
#endif
  return plain::kernels();
}

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

static std::atomic<int> threads{1};

int num_threads() { return threads; }

void set_num_threads(int count) { threads = count < 1 ? 1 : count; }

std::atomic<bool> denormals_are_flushed{false};

void flush_denormals(bool flushed) {
  denormals_are_flushed = flushed;
#pragma omp parallel num_threads(num_threads())
  if (omp_get_thread_num()) set_flushed(flushed);
}

}  // namespace paddlemix
