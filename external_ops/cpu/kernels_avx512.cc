// The kernels for processors with AVX-512.
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "paddlemix/kernels.h"
#include "paddlemix/scratch.h"

// After the standard headers, whose inline functions other files share and must not be compiled for this set.
#pragma GCC target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")

namespace paddlemix {
namespace avx512 {
namespace {

constexpr const char* kSet = "AVX-512";
constexpr int kWidth = 16;

#include "simd.inc"

// The compiler makes two instructions of a comparison and a choice.
inline Floats larger(Floats x, Floats y) { return _mm512_max_ps(x, y); }

inline Floats smaller(Floats x, Floats y) { return _mm512_min_ps(x, y); }

// A division keeps the unit of products busy for as long as ten of them on Zen 4, longer on Intel's processors.
inline Floats reciprocal(Floats x) {
  const Floats near = _mm512_rcp14_ps(x);
  return near + near * (1.0f - x * near);
}

#include "kernels.inc"

}  // namespace

const Kernels& kernels() { return table; }

}  // namespace avx512
}  // namespace paddlemix
