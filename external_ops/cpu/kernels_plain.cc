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

#include "kernels.inc"

}  // namespace

const Kernels& kernels() { return table; }

}  // namespace plain
}  // namespace paddlemix
