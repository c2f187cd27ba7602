// Rotary positions: pairs (x[i], x[i + half]) of every head are rotated by the angle of their token.
#pragma once

#include "launch.cuh"

namespace paddlemix {

constexpr int kMostParts = 3;
constexpr int kRotaryThreads = 256;

// [tokens, heads, size], tokens so many numbers apart. `y` may be `x`.
template <typename T>
struct RotaryPart {
  const T* x;
  T* y;
  int64_t x_stride, y_stride;
  int heads;
  bool turned;  // or copied as it is
};

template <typename T>
struct Rotary {
  RotaryPart<T> parts[kMostParts];
  const float* cos;  // [tokens, half]
  const float* sin;
  int64_t tokens;
  int half;
  bool backwards;  // rotate the other way, as the gradient does
};

// blockIdx.y chooses the part, threadIdx.y the token, threadIdx.x the head and the place in it.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kRotaryThreads) rotary_kernel(Rotary<T> a) {
  const RotaryPart<T> part = a.parts[blockIdx.y];
  const int packs = a.half / kWidth;
  const float sign = a.backwards ? -1.0f : 1.0f;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
  for (int64_t token = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y; token < a.tokens; token += step) {
    for (int pack = threadIdx.x; pack < part.heads * packs; pack += blockDim.x) {
      const int head = pack / packs, i = pack % packs * kWidth;
      const T* x = part.x + token * part.x_stride + head * 2 * a.half + i;
      Pack<T, kWidth> first = read<kWidth>(x), second = read<kWidth>(x + a.half);
      if (part.turned) {
        const Pack<float, kWidth> cos = read<kWidth>(a.cos + token * a.half + i);
        const Pack<float, kWidth> sin = read<kWidth>(a.sin + token * a.half + i);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          const float along = wide(first.at[j]), across = wide(second.at[j]), turn = sign * sin.at[j];
          first.at[j] = narrow<T>(along * cos.at[j] - across * turn);
          second.at[j] = narrow<T>(across * cos.at[j] + along * turn);
        }
      }
      T* y = part.y + token * part.y_stride + head * 2 * a.half + i;
      write<kWidth>(y, first);
      write<kWidth>(y + a.half, second);
    }
  }
}

template <typename T>
bool has_wide_rows(const RotaryPart<T>& part) {
  return are_aligned(part.x, part.y) && part.x_stride % kVector<T> == 0 && part.y_stride % kVector<T> == 0;
}

template <typename T>
void rotate(const Rotary<T>& a, int parts, cudaStream_t stream) {
  bool fits = are_aligned(a.cos, a.sin) && a.half % kVector<T> == 0;
  int heads = 0;
  for (int part = 0; part < parts; ++part) {
    fits = fits && has_wide_rows(a.parts[part]);
    heads = std::max(heads, a.parts[part].heads);
  }
  if (!a.tokens || !a.half || !heads) return;
  with_width<T>(fits, [&](auto width) {
    const int across = std::min(heads * (a.half / width()), kRotaryThreads);
    const dim3 block(across, kRotaryThreads / across);
    launch(rotary_kernel<T, width()>, dim3(blocks_for(a.tokens, block.y), parts), block, stream, a);
  });
}

}  // namespace paddlemix
