// The kernels for any processor.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "paddlemix/kernels.h"
#include "paddlemix/scratch.h"

namespace paddlemix {
namespace plain {
namespace {

constexpr const char* kSet = "plain";
constexpr int kWidth = 4;

#include "simd.inc"

inline Floats larger(Floats x, Floats y) { return x > y ? x : y; }

inline Floats smaller(Floats x, Floats y) { return x < y ? x : y; }

inline Floats reciprocal(Floats x) { return 1.0f / x; }

#include "kernels.inc"

}  // namespace

const Kernels& kernels() { return table; }

}  // namespace plain
}  // namespace paddlemix
