// Normalisation of rows. A row is read once, and kept in registers until its statistics are known.
#pragma once

#include "launch.cuh"
#include "row.cuh"

namespace paddlemix {

// Rows come in one dtype (X) and may leave in another (Y); what is added to them first has its own (Branch). Two of the
// three are the same, or all: `with_norm_dtypes` knows which mixes there are. Weights and biases are of the narrower one
// of X and Y, or float32, by a choice at run time: they are few, and stay in the caches.

// Packs of a row that a thread holds. The gradient of layer norm also holds two sums for every number.
constexpr int kNormHeld = 4;
constexpr int kLayerNormGradHeld = 2;

template <typename X, typename Branch, typename Y>
struct RmsNorm {
  const X* x;                    // [rows, size]
  const Branch* branch;          // [rows, size] or null; added to x first
  Scale<Narrower<X, Y>> weight;  // [size]
  X* sum;                        // [rows, size], x + branch; null where there is no branch
  Y* y;                          // [rows, size]
  float* inverse;                // [rows]: one over the root mean square
  int64_t rows, size;
  float epsilon;
};

template <typename X, typename Branch, typename Y>
struct RmsNormGrad {
  const X* x;  // what was normalised
  Scale<Narrower<X, Y>> weight;
  const float* inverse;
  const Y* y_grad;
  const X* sum_grad;  // or null; added to the result
  X* x_grad;
  Branch* branch_grad;  // the same in the branch's dtype; null where there was no branch, unused where that is X
  void* weight_grad;    // of `weight_dtype`
  float* shares;        // [groups of threads, size]: of weight_grad, each group's rows
  int64_t rows, size;
  int weight_dtype;
};

template <typename X, typename Y>
struct LayerNorm {
  const X* x;
  Scale<Narrower<X, Y>> weight;  // or null
  Scale<Narrower<X, Y>> bias;    // or null
  Y* y;
  float* mean;     // [rows]
  float* inverse;  // [rows]: one over the standard deviation
  int64_t rows, size;
  float epsilon;
};

template <typename X, typename Y>
struct LayerNormGrad {
  const X* x;
  Scale<Narrower<X, Y>> weight;  // or null
  const float* mean;
  const float* inverse;
  const Y* y_grad;
  X* x_grad;
  void* weight_grad;     // of `weight_dtype`; or null
  void* bias_grad;       // of `bias_dtype`; or null
  float* weight_shares;  // as RmsNormGrad's
  float* bias_shares;
  int64_t rows, size;
  int weight_dtype, bias_dtype;
};

template <typename X, typename Branch, int kWidth>
__device__ Pack<X, kWidth> added(const Pack<X, kWidth>& x, const Pack<Branch, kWidth>& branch) {
  Pack<X, kWidth> sum;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) sum.at[j] = narrow<X>(wide(x.at[j]) + wide(branch.at[j]));
  return sum;
}

template <typename X, typename Branch, typename Y, int kWidth, int kLanes>
__global__ void __launch_bounds__(kBlockThreads<kLanes>) rms_norm_kernel(RmsNorm<X, Branch, Y> a) {
  for (int64_t row = Group<kLanes>::index(); row < a.rows; row += Group<kLanes>::count()) {
    const int64_t offset = row * a.size;
    const X* from = a.x + offset;
    Row<X, kWidth, kLanes, kNormHeld> x;
    x.load(from, a.size);
    if (a.branch) {
      // The sum is rounded before it is normalised: so the gradient, which sees the rounded one, is that of this.
      const Branch* branch = a.branch + offset;
      X* sum = a.sum + offset;
      Row<Branch, kWidth, kLanes, kNormHeld> more;
      more.load(branch, a.size);
      each<kWidth, kLanes, kNormHeld>(
          a.size, [&](int k, int64_t i) { write<kWidth>(sum + i, x.held[k] = added(x.held[k], more.held[k])); },
          [&](int64_t i) { write<kWidth>(sum + i, added(read<kWidth>(from + i), read<kWidth>(branch + i))); });
      from = sum;
    }
    float squares = 0.0f;
    x.each(from, a.size, [&](int64_t, const Pack<X, kWidth>& numbers) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) squares += wide(numbers.at[j]) * wide(numbers.at[j]);
    });
    const float inverse = 1.0f / sqrtf(sum_of<kLanes>(squares) / a.size + a.epsilon);
    if (Group<kLanes>::lane() == 0) a.inverse[row] = inverse;
    x.each(from, a.size, [&](int64_t i, const Pack<X, kWidth>& numbers) {
      float weight[kWidth];
      read_wide(a.weight, i, weight);
      Pack<Y, kWidth> y;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) y.at[j] = narrow<Y>(wide(numbers.at[j]) * inverse * weight[j]);
      write<kWidth>(a.y + offset + i, y);
    });
  }
}

// With x' = x / rms and g = y_grad * weight: x_grad = (g - x' mean(g x')) / rms, weight_grad = sum of y_grad x'.
template <typename X, typename Branch, typename Y, int kWidth, int kLanes>
__global__ void __launch_bounds__(kBlockThreads<kLanes>) rms_norm_grad_kernel(RmsNormGrad<X, Branch, Y> a) {
  using Numbers = Pack<X, kWidth>;
  using Ups = Pack<Y, kWidth>;
  float* beyond = a.shares + Group<kLanes>::index() * a.size;  // of the columns that registers do not hold
  float shares[kNormHeld][kWidth] = {};
  each<kWidth, kLanes, kNormHeld>(
      a.size, [](int, int64_t) {},
      [&](int64_t i) {
        for (int j = 0; j < kWidth; ++j) beyond[i + j] = 0.0f;
      });
  for (int64_t row = Group<kLanes>::index(); row < a.rows; row += Group<kLanes>::count()) {
    const X* x_row = a.x + row * a.size;
    const Y* up_row = a.y_grad + row * a.size;
    const float inverse = a.inverse[row];
    Row<X, kWidth, kLanes, kNormHeld> x;
    Row<Y, kWidth, kLanes, kNormHeld> up;
    x.load(x_row, a.size);
    up.load(up_row, a.size);
    float dot = 0.0f;
    const auto meet = [&](int64_t i, const Numbers& x, const Ups& up, float* share) {
      float weight[kWidth];
      read_wide(a.weight, i, weight);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const float part = wide(up.at[j]) * wide(x.at[j]) * inverse;
        share[j] += part;
        dot += part * weight[j];
      }
    };
    each<kWidth, kLanes, kNormHeld>(
        a.size, [&](int k, int64_t i) { meet(i, x.held[k], up.held[k], shares[k]); },
        [&](int64_t i) { meet(i, read<kWidth>(x_row + i), read<kWidth>(up_row + i), beyond + i); });
    const float along = sum_of<kLanes>(dot) / a.size * inverse;
    const auto give = [&](int64_t i, const Numbers& x, const Ups& up) {
      float weight[kWidth], grad[kWidth];
      read_wide(a.weight, i, weight);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) grad[j] = (wide(up.at[j]) * weight[j] - wide(x.at[j]) * along) * inverse;
      if (a.sum_grad) {
        const Numbers more = read<kWidth>(a.sum_grad + row * a.size + i);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) grad[j] += wide(more.at[j]);
      }
      write<kWidth>(a.x_grad + row * a.size + i, narrowed<X>(grad));
      if constexpr (!std::is_same_v<Branch, X>)
        if (a.branch_grad) write<kWidth>(a.branch_grad + row * a.size + i, narrowed<Branch>(grad));
    };
    each<kWidth, kLanes, kNormHeld>(
        a.size, [&](int k, int64_t i) { give(i, x.held[k], up.held[k]); },
        [&](int64_t i) { give(i, read<kWidth>(x_row + i), read<kWidth>(up_row + i)); });
  }
  each<kWidth, kLanes, kNormHeld>(
      a.size,
      [&](int k, int64_t i) {
#pragma unroll
        for (int j = 0; j < kWidth; ++j) beyond[i + j] = shares[k][j];
      },
      [](int64_t) {});
}

template <typename X, typename Y, int kWidth, int kLanes>
__global__ void __launch_bounds__(kBlockThreads<kLanes>) layer_norm_kernel(LayerNorm<X, Y> a) {
  using Numbers = Pack<X, kWidth>;
  for (int64_t row = Group<kLanes>::index(); row < a.rows; row += Group<kLanes>::count()) {
    const X* from = a.x + row * a.size;
    Row<X, kWidth, kLanes, kNormHeld> x;
    x.load(from, a.size);
    float total = 0.0f;
    x.each(from, a.size, [&](int64_t, const Numbers& numbers) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) total += wide(numbers.at[j]);
    });
    const float mean = sum_of<kLanes>(total) / a.size;
    // Around the mean, once that is known: a row far from zero would cancel otherwise.
    float squares = 0.0f;
    x.each(from, a.size, [&](int64_t, const Numbers& numbers) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) squares += (wide(numbers.at[j]) - mean) * (wide(numbers.at[j]) - mean);
    });
    const float inverse = 1.0f / sqrtf(sum_of<kLanes>(squares) / a.size + a.epsilon);
    if (Group<kLanes>::lane() == 0) {
      a.mean[row] = mean;
      a.inverse[row] = inverse;
    }
    x.each(from, a.size, [&](int64_t i, const Numbers& numbers) {
      float y[kWidth], scale[kWidth];
#pragma unroll
      for (int j = 0; j < kWidth; ++j) y[j] = (wide(numbers.at[j]) - mean) * inverse;
      if (a.weight.numbers) {
        read_wide(a.weight, i, scale);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) y[j] *= scale[j];
      }
      if (a.bias.numbers) {
        read_wide(a.bias, i, scale);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) y[j] += scale[j];
      }
      write<kWidth>(a.y + row * a.size + i, narrowed<Y>(y));
    });
  }
}

// With x' = (x - mean) / deviation and g = y_grad * weight: x_grad = (g - mean(g) - x' mean(g x')) / deviation.
template <typename X, typename Y, int kWidth, int kLanes>
__global__ void __launch_bounds__(kBlockThreads<kLanes>) layer_norm_grad_kernel(LayerNormGrad<X, Y> a) {
  using Numbers = Pack<X, kWidth>;
  using Ups = Pack<Y, kWidth>;
  constexpr int kHeld = kLayerNormGradHeld;
  const int64_t offset = Group<kLanes>::index() * a.size;
  float *weight_beyond = a.weight_shares + offset, *bias_beyond = a.bias_shares + offset;
  float weight_shares[kHeld][kWidth] = {}, bias_shares[kHeld][kWidth] = {};
  each<kWidth, kLanes, kHeld>(
      a.size, [](int, int64_t) {},
      [&](int64_t i) {
        for (int j = 0; j < kWidth; ++j) weight_beyond[i + j] = bias_beyond[i + j] = 0.0f;
      });
  const auto scaled = [&](int64_t i, const Ups& up, float (&g)[kWidth]) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) g[j] = wide(up.at[j]);
    if (!a.weight.numbers) return;
    float weight[kWidth];
    read_wide(a.weight, i, weight);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) g[j] *= weight[j];
  };
  for (int64_t row = Group<kLanes>::index(); row < a.rows; row += Group<kLanes>::count()) {
    const X* x_row = a.x + row * a.size;
    const Y* up_row = a.y_grad + row * a.size;
    const float mean = a.mean[row], inverse = a.inverse[row];
    Row<X, kWidth, kLanes, kHeld> x;
    Row<Y, kWidth, kLanes, kHeld> up;
    x.load(x_row, a.size);
    up.load(up_row, a.size);
    float dot = 0.0f, total = 0.0f;
    const auto meet = [&](int64_t i, const Numbers& x, const Ups& up, float* weight_share, float* bias_share) {
      float g[kWidth];
      scaled(i, up, g);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const float normal = (wide(x.at[j]) - mean) * inverse;
        weight_share[j] += wide(up.at[j]) * normal;
        bias_share[j] += wide(up.at[j]);
        dot += g[j] * normal;
        total += g[j];
      }
    };
    each<kWidth, kLanes, kHeld>(
        a.size, [&](int k, int64_t i) { meet(i, x.held[k], up.held[k], weight_shares[k], bias_shares[k]); },
        [&](int64_t i) {
          meet(i, read<kWidth>(x_row + i), read<kWidth>(up_row + i), weight_beyond + i, bias_beyond + i);
        });
    const float along = sum_of<kLanes>(dot) / a.size * inverse, shift = sum_of<kLanes>(total) / a.size;
    const auto give = [&](int64_t i, const Numbers& x, const Ups& up) {
      float g[kWidth];
      scaled(i, up, g);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) g[j] = (g[j] - shift - (wide(x.at[j]) - mean) * along) * inverse;
      write<kWidth>(a.x_grad + row * a.size + i, narrowed<X>(g));
    };
    each<kWidth, kLanes, kHeld>(
        a.size, [&](int k, int64_t i) { give(i, x.held[k], up.held[k]); },
        [&](int64_t i) { give(i, read<kWidth>(x_row + i), read<kWidth>(up_row + i)); });
  }
  each<kWidth, kLanes, kHeld>(
      a.size,
      [&](int k, int64_t i) {
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          weight_beyond[i + j] = weight_shares[k][j];
          bias_beyond[i + j] = bias_shares[k][j];
        }
      },
      [](int64_t) {});
}

// y[size] = shares[groups, size] added up over the groups, in the same order every time.
template <typename T>
__global__ void __launch_bounds__(kWarp* kWarp) add_shares_kernel(const float* shares, int64_t groups, int64_t size,
                                                                  T* y) {
  __shared__ float parts[kWarp][kWarp + 1];  // one more, so that a column lies in different banks
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x;
  float part = 0.0f;
  if (column < size)
    for (int64_t group = threadIdx.y; group < groups; group += kWarp) part += shares[group * size + column];
  parts[threadIdx.y][threadIdx.x] = part;
  __syncthreads();
  const float total = sum_of<kWarp>(parts[threadIdx.x][threadIdx.y]);
  const int64_t summed = static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.y;
  if (threadIdx.x == 0 && summed < size) y[summed] = narrow<T>(total);
}

inline void add_shares(const float* shares, int64_t groups, int64_t size, void* y, int dtype, cudaStream_t stream) {
  const dim3 blocks(static_cast<unsigned>((size + kWarp - 1) / kWarp));
  if (!size) return;
  with_dtype(dtype, [&](auto t) {
    launch(add_shares_kernel<decltype(t)>, blocks, dim3(kWarp, kWarp), stream, shares, groups, size,
           static_cast<decltype(t)*>(y));
  });
}

// Groups of threads that share the rows in a gradient, each of which leaves its own sum over rows: enough to keep the
// card busy.
inline int64_t most_norm_groups(int64_t rows) { return std::min<int64_t>(rows, 8 * multiprocessors()); }

// Calls `work(width, lanes)`, both constants, for rows of so many numbers of which the widest is a T.
template <typename T, int kHeld, typename Work>
void with_row_shape(bool aligned, int64_t size, const Work& work) {
  with_width<T>(aligned && size % kVector<T> == 0, [&](auto width) {
    with_lanes<kHeld>(size / width(), [&](auto lanes) { work(width, lanes); });
  });
}

template <typename X, typename Branch, typename Y>
void rms_norm(const RmsNorm<X, Branch, Y>& a, cudaStream_t stream) {
  if (!a.rows) return;
  const bool aligned = are_aligned(a.x, a.branch, a.weight.numbers, a.sum, a.y);
  with_row_shape<Wider<X, Y>, kNormHeld>(aligned, a.size, [&](auto width, auto lanes) {
    launch(rms_norm_kernel<X, Branch, Y, width(), lanes()>, blocks_for(a.rows, kBlockGroups<lanes()>),
           kBlockThreads<lanes()>, stream, a);
  });
}

template <typename X, typename Y>
void layer_norm(const LayerNorm<X, Y>& a, cudaStream_t stream) {
  if (!a.rows) return;
  const bool aligned = are_aligned(a.x, a.weight.numbers, a.bias.numbers, a.y);
  with_row_shape<Wider<X, Y>, kNormHeld>(aligned, a.size, [&](auto width, auto lanes) {
    launch(layer_norm_kernel<X, Y, width(), lanes()>, blocks_for(a.rows, kBlockGroups<lanes()>),
           kBlockThreads<lanes()>, stream, a);
  });
}

template <typename X, typename Branch, typename Y>
void rms_norm_grad(const RmsNormGrad<X, Branch, Y>& a, cudaStream_t stream) {
  int64_t groups = 0;
  const bool aligned = are_aligned(a.x, a.weight.numbers, a.y_grad, a.sum_grad, a.x_grad, a.branch_grad);
  if (a.rows)
    with_row_shape<Wider<X, Y>, kNormHeld>(aligned, a.size, [&](auto width, auto lanes) {
      const unsigned blocks = blocks_for(most_norm_groups(a.rows), kBlockGroups<lanes()>);
      groups = static_cast<int64_t>(blocks) * kBlockGroups<lanes()>;
      launch(rms_norm_grad_kernel<X, Branch, Y, width(), lanes()>, blocks, kBlockThreads<lanes()>, stream, a);
    });
  add_shares(a.shares, groups, a.size, a.weight_grad, a.weight_dtype, stream);
}

template <typename X, typename Y>
void layer_norm_grad(const LayerNormGrad<X, Y>& a, cudaStream_t stream) {
  int64_t groups = 0;
  const bool aligned = are_aligned(a.x, a.weight.numbers, a.y_grad, a.x_grad);
  if (a.rows)
    with_row_shape<Wider<X, Y>, kLayerNormGradHeld>(aligned, a.size, [&](auto width, auto lanes) {
      const unsigned blocks = blocks_for(most_norm_groups(a.rows), kBlockGroups<lanes()>);
      groups = static_cast<int64_t>(blocks) * kBlockGroups<lanes()>;
      launch(layer_norm_grad_kernel<X, Y, width(), lanes()>, blocks, kBlockThreads<lanes()>, stream, a);
    });
  if (a.weight_grad) add_shares(a.weight_shares, groups, a.size, a.weight_grad, a.weight_dtype, stream);
  if (a.bias_grad) add_shares(a.bias_shares, groups, a.size, a.bias_grad, a.bias_dtype, stream);
}

// Bytes of scratch that a gradient of a norm needs: both kinds of shares, with room for a last block's idle groups.
inline int64_t norm_scratch(int64_t rows, int64_t size) {
  constexpr int64_t kMostGroups = kBlockGroups<kWarp>;
  const int64_t groups = (most_norm_groups(rows) + kMostGroups - 1) / kMostGroups * kMostGroups;
  return 2 * groups * size * static_cast<int64_t>(sizeof(float));
}

}  // namespace paddlemix
