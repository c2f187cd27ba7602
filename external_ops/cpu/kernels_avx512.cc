// The kernels for processors with AVX-512.
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

#include "kernels.inc"

}  // namespace

const Kernels& kernels() { return table; }

}  // namespace avx512
}  // namespace paddlemix
