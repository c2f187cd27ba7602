// What Python asks of the library as a whole.
#include "paddlemix/kernels.h"
#include "paddlemix/threads.h"

// Of Intel's OpenMP, which Paddle's wheels bring; the ops may run on another.
extern "C" __attribute__((weak)) void kmp_set_blocktime(int milliseconds);

extern "C" {

__attribute__((visibility("default"))) void paddlemix_set_num_threads(int threads) {
  paddlemix::set_num_threads(threads);
}

__attribute__((visibility("default"))) int paddlemix_num_threads() { return paddlemix::num_threads(); }

// How long this thread's idle helpers spin before they sleep.
__attribute__((visibility("default"))) void paddlemix_set_wait(int milliseconds) {
  if (kmp_set_blocktime) kmp_set_blocktime(milliseconds);
}

__attribute__((visibility("default"))) const char* paddlemix_instruction_set() { return paddlemix::kernels().name; }
}
