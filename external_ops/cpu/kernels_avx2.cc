// The kernels for processors with AVX2.
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

#include "kernels.inc"

}  // namespace

const Kernels& kernels() { return table; }

}  // namespace avx2
}  // namespace paddlemix
