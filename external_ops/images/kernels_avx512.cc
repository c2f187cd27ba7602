// The kernels for processors with AVX-512.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "paddlemix/image_kernels.h"
#include "paddlemix/scratch.h"

// After the standard headers, whose inline functions other files share and must not be compiled for this set.
#pragma GCC target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")

namespace paddlemix {
namespace avx512 {
namespace {

constexpr const char* kSet = "AVX-512";
constexpr int kWidth = 16;

#include "../cpu/simd.inc"

typedef uint8_t Bytes __attribute__((vector_size(kWidth)));

inline void narrow(Ints x, uint8_t* to) {
  x = x < 0 ? Ints{} : x;
  x = x > 255 ? Ints{} + 255 : x;
  const Bytes bytes = __builtin_convertvector(x, Bytes);
  __builtin_memcpy(to, &bytes, sizeof bytes);
}

#include "kernels.inc"

}  // namespace

const ImageKernels& image_kernels() { return table; }

}  // namespace avx512
}  // namespace paddlemix
