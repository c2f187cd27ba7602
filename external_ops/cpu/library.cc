// What Python asks of the library as a whole.
#include "paddlemix/kernels.h"
#include "paddlemix/threads.h"

extern "C" {

__attribute__((visibility("default"))) void paddlemix_set_num_threads(int threads) {
  paddlemix::set_num_threads(threads);
}

__attribute__((visibility("default"))) int paddlemix_num_threads() { return paddlemix::num_threads(); }

// Lets idle threads wait awake while the cores are free, and sleep while other programs want them.
__attribute__((visibility("default"))) void paddlemix_adapt_waiting(int wanted) { paddlemix::adapt_waiting(wanted); }

__attribute__((visibility("default"))) int paddlemix_threads_wait_awake() { return paddlemix::threads_wait_awake(); }

__attribute__((visibility("default"))) void paddlemix_flush_denormals(int wanted) {
  paddlemix::flush_denormals(wanted);
}

// Writes MXCSR of each thread of a team that is started as Paddle's products start theirs (0), as ours do by oneDNN (1),
// or of one of our own loops (2).
__attribute__((visibility("default"))) void paddlemix_control_registers(int threads, int kind, uint32_t* registers) {
  const auto note = [&](int thread) { registers[thread] = paddlemix::control_register(); };
  const auto note_all = [&] {
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int thread = 0; thread < threads; ++thread) note(thread);
  };
  if (kind == 2) return paddlemix::run_parts(threads, note);
  if (kind == 0) return note_all();
  const paddlemix::OpenMPThreads as_for_products(threads);
  note_all();
}

__attribute__((visibility("default"))) const char* paddlemix_instruction_set() { return paddlemix::kernels().name; }
}
