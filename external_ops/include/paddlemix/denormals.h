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

// Whether the ops flush; where not, they compute as the threads that they find do.
extern std::atomic<bool> denormals_are_flushed;

// Flushes in this thread while it lives, and leaves the thread as it was: it is the caller's. Each thread of a team has
// one, since it may be older than the wish, and oneDNN's take the setting over from the thread that starts them.
class FlushedDenormals {
 public:
  FlushedDenormals()
      : changes_(denormals_are_flushed.load(std::memory_order_relaxed) && (control_register() & kFlushed) != kFlushed) {
    if (changes_) before_ = control_register(), set_flushed(true);
  }
  ~FlushedDenormals() {
#if defined(__x86_64__)
    if (changes_) _mm_setcsr((control_register() & ~kFlushed) | (before_ & kFlushed));
#endif
  }
  FlushedDenormals(const FlushedDenormals&) = delete;
  FlushedDenormals& operator=(const FlushedDenormals&) = delete;

 private:
  bool changes_;
  uint32_t before_ = 0;
};

// Says what the ops do, and sets the idle threads of this thread's team: GNU's OpenMP hands nothing on to those.
void flush_denormals(bool flushed);

}  // namespace paddlemix
