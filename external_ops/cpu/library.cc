// What Python asks of the library as a whole.
#include "paddlemix/kernels.h"
#include "paddlemix/matmul.h"
#include "paddlemix/threads.h"

extern "C" {

__attribute__((visibility("default"))) void paddlemix_set_num_threads(int threads) {
  paddlemix::set_num_threads(threads);
}

__attribute__((visibility("default"))) int paddlemix_num_threads() { return paddlemix::num_threads(); }

__attribute__((visibility("default"))) const char* paddlemix_instruction_set() { return paddlemix::kernels().name; }

__attribute__((visibility("default"))) int paddlemix_has_fast_bfloat16() { return paddlemix::has_fast_bfloat16(); }
}
