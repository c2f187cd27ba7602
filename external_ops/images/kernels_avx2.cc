// The kernels for processors with AVX2.
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "paddlemix/image_kernels.h"
#include "paddlemix/scratch.h"

// After the standard headers, whose inline functions other files share and must not be compiled for this set.
#pragma GCC target("avx2,fma")

namespace paddlemix {
namespace avx2 {
namespace {

constexpr const char* kSet = "AVX2";
constexpr int kWidth = 8;

#include "../cpu/simd.inc"

inline void narrow(Ints x, uint8_t* to) {
  const __m256i words = _mm256_packs_epi32((__m256i)x, (__m256i)x);  // halves of four numbers each
  const __m256i bytes = _mm256_packus_epi16(words, words);
  const int32_t low = _mm256_extract_epi32(bytes, 0), high = _mm256_extract_epi32(bytes, 4);
  __builtin_memcpy(to, &low, sizeof low);
  __builtin_memcpy(to + sizeof low, &high, sizeof high);
}

#include "kernels.inc"

}  // namespace

const ImageKernels& image_kernels() { return table; }

}  // namespace avx2
}  // namespace paddlemix
