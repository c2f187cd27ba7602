// Chooses the kernels that this processor runs.
#include "paddlemix/instruction_set.h"
#include "paddlemix/image_kernels.h"

namespace paddlemix {

namespace plain {
const ImageKernels& image_kernels();
}

#if defined(__x86_64__)
namespace avx2 {
const ImageKernels& image_kernels();
}
namespace avx512 {
const ImageKernels& image_kernels();
}
#endif

static const ImageKernels& choose() {
#if defined(__x86_64__)
  const InstructionSet best = best_instruction_set();
  if (best == InstructionSet::kAvx512) return avx512::image_kernels();
  if (best == InstructionSet::kAvx2) return avx2::image_kernels();
#endif
  return plain::image_kernels();
}

const ImageKernels& image_kernels() {
  static const ImageKernels& chosen = choose();
  return chosen;
}

}  // namespace paddlemix
