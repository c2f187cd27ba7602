// The kernels for processors with AVX2.
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "paddlemix/kernels.h"
#include "paddlemix/scratch.h"

// After the standard headers, whose inline functions other files share and must not be compiled for this set.
#pragma GCC target("avx2,fma")

namespace paddlemix {
namespace avx2 {
namespace {

constexpr const char* kSet = "AVX2";
constexpr int kWidth = 8;

#include "simd.inc"

inline Floats larger(Floats x, Floats y) { return _mm256_max_ps(x, y); }

inline Floats smaller(Floats x, Floats y) { return _mm256_min_ps(x, y); }

inline Floats reciprocal(Floats x) { return 1.0f / x; }

#include "kernels.inc"

}  // namespace

const Kernels& kernels() { return table; }

}  // namespace avx2
}  // namespace paddlemix
