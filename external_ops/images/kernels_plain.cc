// The kernels for any processor.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "paddlemix/image_kernels.h"
#include "paddlemix/scratch.h"

namespace paddlemix {
namespace plain {
namespace {

constexpr const char* kSet = "plain";
constexpr int kWidth = 4;

#include "../cpu/simd.inc"

inline void narrow(Ints x, uint8_t* to) {
  for (int i = 0; i < kWidth; ++i) to[i] = static_cast<uint8_t>(std::min(std::max(x[i], 0), 255));
}

#include "kernels.inc"

}  // namespace

const ImageKernels& image_kernels() { return table; }

}  // namespace plain
}  // namespace paddlemix
