// Chooses the kernels that this processor runs.
#include "paddlemix/instruction_set.h"
#include "paddlemix/picture_kernels.h"

namespace paddlemix {

namespace plain {
const PictureKernels& picture_kernels();
}

#if defined(__x86_64__)
namespace avx2 {
const PictureKernels& picture_kernels();
}
namespace avx512 {
const PictureKernels& picture_kernels();
}
#endif

static const PictureKernels& choose() {
#if defined(__x86_64__)
  const InstructionSet best = best_instruction_set();
  if (best == InstructionSet::kAvx512) return avx512::picture_kernels();
  if (best == InstructionSet::kAvx2) return avx2::picture_kernels();
#endif
  return plain::picture_kernels();
}

const PictureKernels& picture_kernels() {
  static const PictureKernels& chosen = choose();
  return chosen;
}

}  // namespace paddlemix
