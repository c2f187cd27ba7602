// Denormal numbers, in float32 those below 2^-126, as 0 in all threads that compute.
//
// Intel's processors leave them to microcode, some 150 cycles each: a head's loss took 17 s instead of 0.3. Whether
// they are kept is a setting of each thread (MXCSR), which a new thread takes over from the one that starts it.
#pragma once

#include <atomic>
#include <cstdint>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace paddlemix {

// MXCSR's bits that make results (FTZ) and operands (DAZ) 0.
constexpr uint32_t kFlushed = 0x8040;

// Of this thread; 0 on processors that have no MXCSR.
inline uint32_t control_register() {
#if defined(__x86_64__)
  return _mm_getcsr();
#else
  return 0;
#endif
}

inline void set_flushed(bool flushed) {
#if defined(__x86_64__)
  _mm_setcsr(flushed ? control_register() | kFlushed : control_register() & ~kFlushed);
#endif
}

// Whether the ops flush; where not, they leave threads as they find them.
extern std::atomic<bool> denormals_are_flushed;

// What each thread does before it computes: it may be older than the wish, or started by a thread that knows nothing
// of it. Reading the register takes a nanosecond.
inline void settle_denormals() {
  if (denormals_are_flushed.load(std::memory_order_relaxed) && (control_register() & kFlushed) != kFlushed)
    set_flushed(true);
}

// Sets all threads on which this one's ops, oneDNN and OpenMP compute.
void flush_denormals(bool flushed);

}  // namespace paddlemix
