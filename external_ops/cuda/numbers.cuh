// Numbers of the three dtypes, and loads of several at once.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

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

template <int kBytes>
struct Word;
template <>
struct Word<2> {
  using Type = unsigned short;
};
template <>
struct Word<4> {
  using Type = unsigned;
};
template <>
struct Word<8> {
  using Type = uint2;
};
template <>
struct Word<16> {
  using Type = uint4;
};

// A pack as the fewest words. Stored by plain assignment, nvcc 13.0 takes some apart again into narrow stores.
template <typename Numbers>
struct Words {
  static constexpr int kBytes = alignof(Numbers), kCount = sizeof(Numbers) / kBytes;
  using One = typename Word<kBytes>::Type;
  One at[kCount];
};

template <int kWidth, typename T>
__device__ Pack<T, kWidth> read(const T* from) {
  using Parts = Words<Pack<T, kWidth>>;
  Parts parts;
#pragma unroll
  for (int n = 0; n < Parts::kCount; ++n) parts.at[n] = reinterpret_cast<const typename Parts::One*>(from)[n];
  Pack<T, kWidth> numbers;
  memcpy(&numbers, &parts, sizeof numbers);
  return numbers;
}

template <int kWidth, typename T>
__device__ void write(T* to, const Pack<T, kWidth>& numbers) {
  using Parts = Words<Pack<T, kWidth>>;
  Parts parts;
  memcpy(&parts, &numbers, sizeof numbers);
#pragma unroll
  for (int n = 0; n < Parts::kCount; ++n) __stwb(reinterpret_cast<typename Parts::One*>(to) + n, parts.at[n]);
}

template <typename T, int kWidth>
__device__ Pack<T, kWidth> narrowed(const float (&x)[kWidth]) {
  Pack<T, kWidth> numbers;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) numbers.at[j] = narrow<T>(x[j]);
  return numbers;
}

// Of two dtypes the one that takes more bytes, and the one that takes fewer.
template <typename X, typename Y>
using Wider = std::conditional_t<(sizeof(X) < sizeof(Y)), Y, X>;
template <typename X, typename Y>
using Narrower = std::conditional_t<(sizeof(X) < sizeof(Y)), X, Y>;

// Numbers in float32, or in T: which, is known at run time alone. Or null.
template <typename T>
struct Scale {
  const void* numbers;
  bool is_wide;
};

template <typename T, int kWidth>
__device__ void read_wide(const T* from, float (&to)[kWidth]) {
  const Pack<T, kWidth> numbers = read<kWidth>(from);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) to[j] = wide(numbers.at[j]);
}

template <typename T, int kWidth>
__device__ void read_wide(const Scale<T>& from, int64_t i, float (&to)[kWidth]) {
  if (std::is_same_v<T, float> || from.is_wide)
    read_wide(static_cast<const float*>(from.numbers) + i, to);
  else
    read_wide(static_cast<const T*>(from.numbers) + i, to);
}

// Whether wide loads may start here. Null, which stands for "not given", is not read at all.
inline bool is_aligned(const void* address) { return reinterpret_cast<std::uintptr_t>(address) % kLoadBytes == 0; }

template <typename... Addresses>
bool are_aligned(Addresses... addresses) {
  return (is_aligned(addresses) && ...);
}

}  // namespace paddlemix
