// Numbers of the three dtypes, and loads of several at once.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace paddlemix {

// Everything is computed in float32, whatever it is held in.
__device__ inline float wide(float x) { return x; }
__device__ inline float wide(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float wide(__half x) { return __half2float(x); }

template <typename T>
__device__ T narrow(float x);
template <>
__device__ inline float narrow<float>(float x) {
  return x;
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
  return __float2bfloat16(x);
}
template <>
__device__ inline __half narrow<__half>(float x) {
  return __float2half(x);
}

// The widest load of a thread.
constexpr int kLoadBytes = 16;

// Numbers that one such load brings.
template <typename T>
constexpr int kVector = kLoadBytes / sizeof(T);

template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth < kLoadBytes ? sizeof(T) * kWidth : kLoadBytes) Pack {
  T at[kWidth];
};

template <int kWidth, typename T>
__device__ Pack<T, kWidth> read(const T* from) {
  return *reinterpret_cast<const Pack<T, kWidth>*>(from);
}

template <int kWidth, typename T>
__device__ void write(T* to, const Pack<T, kWidth>& numbers) {
  *reinterpret_cast<Pack<T, kWidth>*>(to) = numbers;
}

// Whether wide loads may start here. Null, which stands for "not given", is not read at all.
inline bool is_aligned(const void* address) { return reinterpret_cast<std::uintptr_t>(address) % kLoadBytes == 0; }

template <typename... Addresses>
bool are_aligned(Addresses... addresses) {
  return (is_aligned(addresses) && ...);
}

}  // namespace paddlemix
