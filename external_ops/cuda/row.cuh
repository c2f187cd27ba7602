// A row shared by a group of threads: each holds its part in registers, and reads again what does not fit there.
#pragma once

#include "numbers.cuh"

namespace paddlemix {

constexpr int kWarp = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;
// A block has at least so many threads; several groups share it where a group is one warp.
constexpr int kLeastThreads = 128;

template <int kLanes>
constexpr int kBlockThreads = kLanes < kLeastThreads ? kLeastThreads : kLanes;
template <int kLanes>
constexpr int kBlockGroups = kBlockThreads<kLanes> / kLanes;

__device__ inline int64_t lesser(int64_t x, int64_t y) { return x < y ? x : y; }
__device__ inline int64_t larger(int64_t x, int64_t y) { return x > y ? x : y; }

// This thread's place among the groups of `kLanes` threads. A group of more than a warp is a block.
template <int kLanes>
struct Group {
  __device__ static int lane() { return threadIdx.x % kLanes; }
  __device__ static int64_t index() {
    return static_cast<int64_t>(blockIdx.x) * kBlockGroups<kLanes> + threadIdx.x / kLanes;
  }
  __device__ static int64_t count() { return static_cast<int64_t>(gridDim.x) * kBlockGroups<kLanes>; }
};

struct Sum {
  __device__ static float join(float x, float y) { return x + y; }
};
struct Maximum {
  __device__ static float join(float x, float y) { return fmaxf(x, y); }
};

// Joins one number of each thread of a group; all threads get the same result, bit for bit.
template <int kLanes, typename Way>
__device__ float join(float x) {
  static_assert(kLanes == kWarp || kLanes >= kLeastThreads, "a group is one warp, or a whole block");
  for (int step = kWarp / 2; step > 0; step /= 2) x = Way::join(x, __shfl_xor_sync(kWholeWarp, x, step));
  if constexpr (kLanes > kWarp) {
    constexpr int kWarps = kLanes / kWarp;
    __shared__ float parts[kWarps];
    __syncthreads();  // until all have read what was joined here before
    if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = x;
    __syncthreads();
    x = parts[0];
    for (int warp = 1; warp < kWarps; ++warp) x = Way::join(x, parts[warp]);
  }
  return x;
}

template <int kLanes>
__device__ float sum_of(float x) {
  return join<kLanes, Sum>(x);
}

template <int kLanes>
__device__ float largest_of(float x) {
  return join<kLanes, Maximum>(x);
}

// Calls `held(k, i)` for this thread's packs k that are held in registers, `rest(i)` for those beyond; i is the place
// of a pack's first number in the row.
template <int kWidth, int kLanes, int kHeld, typename Held, typename Rest>
__device__ void each(int64_t size, const Held& held, const Rest& rest) {
  const int64_t first = static_cast<int64_t>(Group<kLanes>::lane()) * kWidth;
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    const int64_t i = first + k * (kLanes * kWidth);
    if (i < size) held(k, i);
  }
  for (int64_t i = first + kHeld * (kLanes * kWidth); i < size; i += kLanes * kWidth) rest(i);
}

template <typename T, int kWidth, int kLanes, int kHeld>
struct Row {
  using Numbers = Pack<T, kWidth>;
  Numbers held[kHeld];

  __device__ void load(const T* from, int64_t size) {
    paddlemix::each<kWidth, kLanes, kHeld>(
        size, [&](int k, int64_t i) { held[k] = read<kWidth>(from + i); }, [](int64_t) {});
  }

  // Calls `work(i, numbers)` for every pack of the row, which is at `from` as well.
  template <typename Work>
  __device__ void each(const T* from, int64_t size, const Work& work) const {
    paddlemix::each<kWidth, kLanes, kHeld>(
        size, [&](int k, int64_t i) { work(i, held[k]); }, [&](int64_t i) { work(i, read<kWidth>(from + i)); });
  }
};

// Calls `work` with the number of threads that share a row of so many packs, each holding about `kHeld`.
template <int kHeld, typename Work>
void with_lanes(int64_t packs, const Work& work) {
  if (packs <= kWarp * kHeld)
    work(std::integral_constant<int, kWarp>());
  else if (packs <= 128 * kHeld)
    work(std::integral_constant<int, 128>());
  else
    work(std::integral_constant<int, 512>());
}

}  // namespace paddlemix
