// What Python calls, through ctypes, which releases its lock meanwhile. Sizes are checked there, where an error can name
// them.
#include <new>

#include "paddlemix/image_kernels.h"

namespace {

template <typename Op>
int run(void (*kernel)(const Op&), const Op* op) {
  try {
    kernel(*op);
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) const char* paddlemix_image_instruction_set() {
  return paddlemix::image_kernels().name;
}

// 0, or 1 where memory ran out.
__attribute__((visibility("default"))) int paddlemix_resize(const paddlemix::Resize* op) {
  return run(paddlemix::image_kernels().resize, op);
}

__attribute__((visibility("default"))) int paddlemix_patchify(const paddlemix::Patchify* op) {
  return run(paddlemix::image_kernels().patchify, op);
}
}
