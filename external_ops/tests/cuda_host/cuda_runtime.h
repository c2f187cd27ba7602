// What the CUDA kernels use of the CUDA runtime, on the host: a kernel's threads are fibers that run one after another
// and meet at barriers and shuffles. For tests on machines without a card; nothing here is fast.
//
// A block is wrong, and the program ends, where some of its threads wait for others that have returned, where a warp's
// threads meet in different shuffles, and where a launch is larger than a card allows. PADDLEMIX_HOST_ORDER=reverse
// runs the threads of a block, and the blocks, from the last to the first: what is right only in one order has a race.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __host__
// One block runs at a time, on one thread of the system.
#define __shared__ static
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };
enum cudaDataType_t { CUDA_R_32F, CUDA_R_16BF, CUDA_R_16F };
using cudaStream_t = void*;

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid configuration argument";
}

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

// Few, so that groups of threads have more than one row each in small tests too.
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 1;
  return cudaSuccess;
}

inline unsigned __umulhi(unsigned x, unsigned y) { return static_cast<std::uint64_t>(x) * y >> 32; }

inline float __fdividef(float x, float y) { return x / y; }

template <typename Word>
void __stwb(Word* to, Word x) {
  *to = x;
}

namespace host {

constexpr std::size_t kStackBytes = 64 << 10;
constexpr unsigned kWarpThreads = 32;
constexpr std::size_t kMostThreads = 1024;

enum class State { kReady, kAtBarrier, kInShuffle, kDone };

// A thread of a block. It stays when its block is done, and runs a thread of the next.
struct Fiber {
  jmp_buf place_in_code;
  std::unique_ptr<char[]> stack;
  dim3 place;
  State state = State::kReady;
  float given = 0.0f;  // to a shuffle
  int step = 0;
};

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "a kernel is wrong: %s\n", what);
  std::abort();
}

class Block {
 public:
  void run(dim3 shape, const std::function<void()>& body) {
    body_ = &body;
    count_ = shape.x * shape.y * shape.z;
    finished_ = 0;
    for (std::size_t i = 0; i < count_; ++i) {
      if (!fibers_[i].stack) make(fibers_[i]);
      fibers_[i].place = dim3(i % shape.x, i / shape.x % shape.y, i / shape.x / shape.y);
      fibers_[i].state = State::kReady;
    }
    static const bool reverse = std::getenv("PADDLEMIX_HOST_ORDER") != nullptr;
    while (finished_ < count_) {
      bool moved = false;
      for (std::size_t i = 0; i < count_; ++i) {
        Fiber& fiber = fibers_[reverse ? count_ - 1 - i : i];
        if (fiber.state != State::kReady) continue;
        moved = true;
        resume(fiber);
      }
      if (!moved && !release()) fail("threads wait for others that have returned");
    }
  }

  void wait(State state) {
    running_->state = state;
    // The signal mask is left alone: saving it would cost a call of the system for every switch.
    if (!_setjmp(running_->place_in_code)) _longjmp(home_, 1);
  }
  Fiber& running() { return *running_; }
  // The thread of this warp whose number differs in `step`.
  Fiber& partner(int step) { return fibers_[(running_ - fibers_.data()) ^ step]; }

 private:
  // Runs a new fiber up to its first wait.
  void make(Fiber& fiber) {
    fiber.stack.reset(new char[kStackBytes]);
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = fiber.stack.get();
    context.uc_stack.ss_size = kStackBytes;
    context.uc_link = nullptr;
    makecontext(&context, &Block::enter, 0);
    running_ = &fiber;
    if (!_setjmp(home_)) setcontext(&context);
  }

  static void enter();

  void resume(Fiber& fiber) {
    running_ = &fiber;
    threadIdx = fiber.place;
    if (!_setjmp(home_)) _longjmp(fiber.place_in_code, 1);
  }

  // Releases the warps that are complete in a shuffle, or else the block where all are at a barrier.
  bool release() {
    bool released = false;
    for (std::size_t first = 0; first < count_; first += kWarpThreads) released |= release_warp(first);
    if (released) return true;
    for (std::size_t i = 0; i < count_; ++i)
      if (fibers_[i].state != State::kAtBarrier) return false;
    for (std::size_t i = 0; i < count_; ++i) fibers_[i].state = State::kReady;
    return true;
  }

  bool release_warp(std::size_t first) {
    if (first + kWarpThreads > count_) return false;
    for (std::size_t i = first; i < first + kWarpThreads; ++i)
      if (fibers_[i].state != State::kInShuffle) return false;
    for (std::size_t i = first; i < first + kWarpThreads; ++i) {
      if (fibers_[i].step != fibers_[first].step) fail("threads of a warp meet in different shuffles");
      fibers_[i].state = State::kReady;
    }
    return true;
  }

  std::vector<Fiber> fibers_ = std::vector<Fiber>(kMostThreads);
  const std::function<void()>* body_ = nullptr;
  std::size_t count_ = 0, finished_ = 0;
  jmp_buf home_;
  Fiber* running_ = nullptr;
};

inline Block& block() {
  static Block block;
  return block;
}

inline void Block::enter() {
  Block& here = block();
  here.wait(State::kReady);
  for (;;) {
    (*here.body_)();
    ++here.finished_;
    here.wait(State::kDone);
  }
}

}  // namespace host

inline void __syncthreads() { host::block().wait(host::State::kAtBarrier); }

inline float __shfl_xor_sync(unsigned mask, float x, int step) {
  if (mask != 0xffffffffu) host::fail("a shuffle of part of a warp");
  host::Fiber& fiber = host::block().running();
  fiber.given = x;
  fiber.step = step;
  host::block().wait(host::State::kInShuffle);
  const float got = host::block().partner(step).given;
  // The partner may give its next number only when this one has been read.
  fiber.step = 0;
  host::block().wait(host::State::kInShuffle);
  return got;
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments... arguments) {
  const dim3 grid = config->gridDim, block = config->blockDim;
  const std::uint64_t blocks = static_cast<std::uint64_t>(grid.x) * grid.y * grid.z;
  const std::uint64_t threads = static_cast<std::uint64_t>(block.x) * block.y * block.z;
  if (!blocks || !threads || threads > 1024 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    return cudaErrorInvalidConfiguration;
  gridDim = grid;
  blockDim = block;
  const bool reverse = std::getenv("PADDLEMIX_HOST_ORDER") != nullptr;
  for (std::uint64_t n = 0; n < blocks; ++n) {
    const std::uint64_t i = reverse ? blocks - 1 - n : n;
    blockIdx = dim3(i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y);
    host::block().run(block, [&] { kernel(arguments...); });
  }
  return cudaSuccess;
}
