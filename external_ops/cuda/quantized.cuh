// Products with a weight that is held as codes of 4 or 8 bits, in blocks of consecutive numbers that share a scale. A
// few rows, as answers have, are multiplied straight from the codes, which are all that is read of the weight. Of more
// rows, and for gradients, parts of the weight are put into floating point, one after the other in the same scratch,
// and cuBLAS multiplies them.
// Source: Granlund and Montgomery, "Division by invariant integers using multiplication", 1994 (`Divisor`).
#pragma once

#include "launch.cuh"
#include "matmul.cuh"
#include "row.cuh"

namespace paddlemix {

// Numbers whose codes a thread takes at once; where they can be, they share a scale.
constexpr int kPackNumbers = 8;
constexpr int kDequantizeThreads = 256;
constexpr int kFewThreads = 128, kFewWarps = kFewThreads / kWarp;
// Up to so many rows are multiplied straight from the codes, `kFewAtOnce` at a time. With twice as many the products of
// float32 numbers would take a large card as long as putting the weight into floating point, writing and reading it.
constexpr int64_t kFewRows = 16, kFewAtOnce = 8;
// Bytes of a weight that are in floating point at a time: the product of 2048 rows with such a part of the widest
// models' weights occupies every multiprocessor of the largest cards about once.
constexpr int64_t kTileBytes = int64_t{128} << 20;
// Parts are multiples of what cuBLAS computes at once.
constexpr int64_t kTileStep = 128;

// Number n of the flattened weight is (value of its code - zeros[n / block]) * scales[n / block].
struct QuantizedWeight {
  const std::uint8_t* codes;  // [outputs * inputs * bits / 8]; of two in a byte the lower bits come first
  const float* values;        // [256, 8 / bits], what the codes of each byte stand for
  const float* scales;        // [blocks]
  const float* zeros;         // [blocks], or null for 0
  int64_t outputs, inputs, block;
  int bits;
};

// A part of a weight.
struct Tile {
  int64_t first_output, outputs, first_input, inputs;
};

template <typename T>
struct QuantizedLinear {
  QuantizedWeight weight;
  const T* x;     // [rows, inputs]; backwards the result's gradient, [rows, outputs]
  const T* bias;  // [outputs], or null
  T* y;           // [rows, outputs]; backwards the gradient of x, [rows, inputs]
  void* scratch;
  int64_t rows;
  int64_t at_once;  // outputs of a tile, backwards inputs; 0 chooses
  bool backwards;
  bool tf32;  // see `Product`
};

// Division of numbers below 2^31 by one that is known when a kernel is launched, without a division.
struct Divisor {
  unsigned factor;
  int shift;

  explicit Divisor(int64_t number) : factor(0), shift(0) {
    while ((int64_t{1} << shift) < number) ++shift;
    factor = static_cast<unsigned>((int64_t{1} << 32) * ((int64_t{1} << shift) - number) / number + 1);
  }
  __device__ unsigned quotient(unsigned x) const { return (__umulhi(x, factor) + x) >> shift; }
};

// What each code stands for, in shared memory, in copies for as many of a warp's threads: of 16 values each thread has
// its own bank, and none waits for another.
template <int kBits>
struct Levels {
  static constexpr int kCodes = 1 << kBits, kCopies = kBits == 4 ? kWarp : 8;
  float at[kCodes * kCopies];

  __device__ void fill(const float* values) {
    for (int k = threadIdx.x; k < kCodes * kCopies; k += blockDim.x) at[k] = values[k / kCopies * (8 / kBits)];
    __syncthreads();
  }
  __device__ float of(unsigned code) const { return at[code * kCopies + threadIdx.x % kCopies]; }
};

template <int kBits>
struct CodePack {
  static constexpr int kWords = kPackNumbers * kBits / 32, kInWord = 32 / kBits;
  Pack<unsigned, kWords> words;

  __device__ void load(const QuantizedWeight& w, unsigned place) {
    words = read<kWords>(reinterpret_cast<const unsigned*>(w.codes) + static_cast<int64_t>(place) * kWords);
  }
  __device__ unsigned code(int i) const {
    return words.at[i / kInWord] >> i % kInWord * kBits & ((1u << kBits) - 1);
  }
};

// The scale of a pack, and its zero.
struct Factors {
  float scale, zero;

  __device__ Factors(const QuantizedWeight& w, unsigned block)
      : scale(w.scales[block]), zero(w.zeros ? w.zeros[block] : 0.0f) {}
};

// Writes a tile row by row. `packs_of_block` and `packs_of_row`, one of the tile's, divide numbers of packs.
template <typename T, int kBits>
__global__ void __launch_bounds__(kDequantizeThreads)
    dequantize_kernel(QuantizedWeight w, Tile tile, Divisor packs_of_block, Divisor packs_of_row, T* y) {
  constexpr int kAhead = 4;
  __shared__ Levels<kBits> levels;
  levels.fill(w.values);
  const unsigned width = static_cast<unsigned>(tile.inputs / kPackNumbers);
  const unsigned stride = static_cast<unsigned>(w.inputs / kPackNumbers);
  const unsigned first = static_cast<unsigned>(tile.first_output * stride + tile.first_input / kPackNumbers);
  const unsigned packs = static_cast<unsigned>(tile.outputs) * width, step = gridDim.x * blockDim.x;
  for (unsigned at = blockIdx.x * blockDim.x + threadIdx.x; at < packs; at += kAhead * step) {
    CodePack<kBits> codes[kAhead];
    unsigned places[kAhead];
#pragma unroll
    for (int n = 0; n < kAhead; ++n) {
      const unsigned pack = at + n * step;
      if (pack >= packs) continue;
      const unsigned row = packs_of_row.quotient(pack);
      places[n] = first + row * stride + (pack - row * width);
      codes[n].load(w, places[n]);
    }
#pragma unroll
    for (int n = 0; n < kAhead; ++n) {
      const unsigned pack = at + n * step;
      if (pack >= packs) continue;
      const Factors factors(w, packs_of_block.quotient(places[n]));
      Pack<T, kPackNumbers> numbers;
#pragma unroll
      for (int i = 0; i < kPackNumbers; ++i)
        numbers.at[i] = narrow<T>((levels.of(codes[n].code(i)) - factors.zero) * factors.scale);
      write(y + static_cast<int64_t>(pack) * kPackNumbers, numbers);
    }
  }
}

// The same number by number, where packs would run over the ends of rows or blocks.
template <typename T>
__global__ void __launch_bounds__(kDequantizeThreads) dequantize_singly_kernel(QuantizedWeight w, Tile tile, T* y) {
  const int64_t count = tile.outputs * tile.inputs, step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; at < count; at += step) {
    const int64_t row = at / tile.inputs;
    const int64_t n = (tile.first_output + row) * w.inputs + tile.first_input + (at - row * tile.inputs);
    const int64_t bit = n * w.bits, block = n / w.block;
    const unsigned code = w.codes[bit / 8] >> bit % 8 & ((1u << w.bits) - 1);
    const float zero = w.zeros ? w.zeros[block] : 0.0f;
    y[at] = narrow<T>((w.values[code * (8 / w.bits)] - zero) * w.scales[block]);
  }
}

// Calls `work` with the bits of a code.
template <typename Work>
void with_bits(int bits, const Work& work) {
  if (bits == 4) return work(std::integral_constant<int, 4>());
  if (bits == 8) return work(std::integral_constant<int, 8>());
  throw std::invalid_argument("a code has " + std::to_string(bits) + " bits; expected 4 or 8");
}

inline void expect_numbers(const QuantizedWeight& w) {
  if (w.outputs < 1 || w.inputs < 1 || w.block < 1)
    throw std::invalid_argument("a weight has no outputs, no inputs or empty blocks; expected at least 1 of each");
}

// Whether packs lie in one row and one block each, and can be counted.
inline bool lies_in_packs(const QuantizedWeight& w) {
  const int64_t packs = w.outputs * w.inputs / kPackNumbers;
  return w.inputs % kPackNumbers == 0 && w.block % kPackNumbers == 0 && is_aligned(w.codes) &&
         packs <= std::numeric_limits<int>::max();
}

template <typename T>
void dequantize(const QuantizedWeight& w, const Tile& tile, T* y, cudaStream_t stream) {
  expect_numbers(w);
  const int64_t count = tile.outputs * tile.inputs;
  if (!count) return;
  const bool fits = tile.first_input % kPackNumbers == 0 && tile.inputs % kPackNumbers == 0 && is_aligned(y);
  with_bits(w.bits, [&](auto bits) {
    if (!fits || !lies_in_packs(w))
      return launch(dequantize_singly_kernel<T>, blocks_for(count, kDequantizeThreads), kDequantizeThreads, stream, w,
                    tile, y);
    // No more blocks than are in flight at once, which fill their tables once.
    const int64_t wanted = blocks_for(count / kPackNumbers, kDequantizeThreads), most = int64_t{8} * multiprocessors();
    launch(dequantize_kernel<T, bits()>, static_cast<unsigned>(std::min(wanted, most)), kDequantizeThreads, stream, w,
           tile, Divisor(w.block / kPackNumbers), Divisor(tile.inputs / kPackNumbers), y);
  });
}

// Outputs that a warp computes at once: with more rows each number of x that is read serves more of them.
template <int kRows>
constexpr int kWarpOutputs = kRows > 2 ? 4 : 2;

// blockIdx.x chooses outputs, `kWarpOutputs` for each warp, blockIdx.y `kRows` rows. Neighbouring threads take
// neighbouring packs, so that codes and rows are read in whole lines.
template <typename T, int kBits, int kRows>
__global__ void __launch_bounds__(kFewThreads) few_rows_kernel(QuantizedLinear<T> a, Divisor packs_of_block) {
  constexpr int kOutputs = kWarpOutputs<kRows>, kAhead = 16 / kBits;
  __shared__ Levels<kBits> levels;
  const QuantizedWeight& w = a.weight;
  levels.fill(w.values);
  const int lane = threadIdx.x % kWarp;
  const unsigned packs = static_cast<unsigned>(w.inputs / kPackNumbers);
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kRows;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kFewWarps * kOutputs;
  int64_t first = (static_cast<int64_t>(blockIdx.x) * kFewWarps + threadIdx.x / kWarp) * kOutputs;
  for (; first < w.outputs; first += step) {
    // Of outputs and rows that are too many, the last is computed again, and left.
    unsigned begins[kOutputs];
#pragma unroll
    for (int o = 0; o < kOutputs; ++o) begins[o] = static_cast<unsigned>(lesser(first + o, w.outputs - 1)) * packs;
    float sums[kRows][kOutputs] = {};
    for (unsigned at = lane; at < packs; at += kWarp * kAhead) {
      CodePack<kBits> codes[kAhead][kOutputs];
#pragma unroll
      for (int n = 0; n < kAhead; ++n)
#pragma unroll
        for (int o = 0; o < kOutputs; ++o)
          if (at + n * kWarp < packs) codes[n][o].load(w, begins[o] + at + n * kWarp);
#pragma unroll
      for (int n = 0; n < kAhead; ++n) {
        const unsigned pack = at + n * kWarp;
        if (pack >= packs) continue;
        float numbers[kOutputs][kPackNumbers], scales[kOutputs];
#pragma unroll
        for (int o = 0; o < kOutputs; ++o) {
          const Factors factors(w, packs_of_block.quotient(begins[o] + pack));
          scales[o] = factors.scale;
#pragma unroll
          for (int i = 0; i < kPackNumbers; ++i) numbers[o][i] = levels.of(codes[n][o].code(i)) - factors.zero;
        }
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          const T* row = a.x + lesser(first_row + r, a.rows - 1) * w.inputs;
          float x[kPackNumbers];
          read_wide(row + static_cast<int64_t>(pack) * kPackNumbers, x);
#pragma unroll
          for (int o = 0; o < kOutputs; ++o) {
            float sum = 0.0f;
#pragma unroll
            for (int i = 0; i < kPackNumbers; ++i) sum += x[i] * numbers[o][i];
            sums[r][o] += sum * scales[o];
          }
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int o = 0; o < kOutputs; ++o) {
        const float sum = sum_of<kWarp>(sums[r][o]);
        const int64_t row = first_row + r, output = first + o;
        if (lane != (r * kOutputs + o) % kWarp || row >= a.rows || output >= w.outputs) continue;
        a.y[row * w.outputs + output] = narrow<T>(sum + (a.bias ? wide(a.bias[output]) : 0.0f));
      }
  }
}

template <typename T, int kBits, int kRows>
void multiply_rows(const QuantizedLinear<T>& a, cudaStream_t stream) {
  const unsigned turns = static_cast<unsigned>((a.rows + kRows - 1) / kRows);
  launch(few_rows_kernel<T, kBits, kRows>, dim3(blocks_for(a.weight.outputs, kFewWarps * kWarpOutputs<kRows>), turns),
         dim3(kFewThreads), stream, a, Divisor(a.weight.block / kPackNumbers));
}

template <typename T>
void multiply_few_rows(const QuantizedLinear<T>& a, cudaStream_t stream) {
  with_bits(a.weight.bits, [&](auto bits) {
    if (a.rows == 1) return multiply_rows<T, bits(), 1>(a, stream);
    if (a.rows == 2) return multiply_rows<T, bits(), 2>(a, stream);
    if (a.rows <= 4) return multiply_rows<T, bits(), 4>(a, stream);
    multiply_rows<T, bits(), kFewAtOnce>(a, stream);
  });
}

// y[rows, size], all rows alike.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kDequantizeThreads) repeat_kernel(const T* row, T* y, int64_t rows, int64_t size) {
  const int64_t count = rows * size, step = static_cast<int64_t>(gridDim.x) * blockDim.x * kWidth;
  for (int64_t at = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kWidth; at < count; at += step)
    write(y + at, read<kWidth>(row + at % size));
}

template <typename T>
void repeat(const T* row, T* y, int64_t rows, int64_t size, cudaStream_t stream) {
  with_width<T>(size % kVector<T> == 0 && are_aligned(row, y), [&](auto width) {
    launch(repeat_kernel<T, width()>, blocks_for(rows * size, kDequantizeThreads * width()), kDequantizeThreads, stream,
           row, y, rows, size);
  });
}

template <typename T>
bool has_few_rows(const QuantizedLinear<T>& a) {
  return !a.backwards && a.rows <= kFewRows && lies_in_packs(a.weight) && is_aligned(a.x);
}

// Outputs of a tile; backwards inputs, so that no product is a sum of others. All tiles but the last have as many.
template <typename T>
int64_t lines_at_once(const QuantizedLinear<T>& a) {
  const auto parts = [](int64_t whole, int64_t part) { return (whole + part - 1) / part; };
  const int64_t lines = a.backwards ? a.weight.inputs : a.weight.outputs;
  const int64_t length = a.backwards ? a.weight.outputs : a.weight.inputs;
  if (a.at_once) return std::min(a.at_once, lines);
  const int64_t most = std::max(kTileBytes / (static_cast<int64_t>(sizeof(T)) * length), kTileStep);
  return std::min(parts(parts(lines, parts(lines, most)), kTileStep) * kTileStep, lines);
}

template <typename T>
int64_t quantized_linear_scratch(const QuantizedLinear<T>& a) {
  expect_numbers(a.weight);
  if (!a.rows || has_few_rows(a)) return 0;
  return static_cast<int64_t>(sizeof(T)) * lines_at_once(a) * (a.backwards ? a.weight.outputs : a.weight.inputs);
}

template <typename T>
void quantized_linear(const QuantizedLinear<T>& a, cudaStream_t stream) {
  const QuantizedWeight& w = a.weight;
  expect_numbers(w);
  if (!a.rows) return;
  if (has_few_rows(a)) return multiply_few_rows(a, stream);
  T* numbers = static_cast<T*>(a.scratch);
  const int64_t lines = a.backwards ? w.inputs : w.outputs, at_once = lines_at_once(a);
  if (a.bias) repeat(a.bias, a.y, a.rows, w.outputs, stream);
  for (int64_t first = 0; first < lines; first += at_once) {
    const int64_t count = std::min(at_once, lines - first);
    dequantize(w, a.backwards ? Tile{0, w.outputs, first, count} : Tile{first, count, 0, w.inputs}, numbers, stream);
    // Backwards the tile is [outputs, count], else [count, inputs].
    const Product product{a.rows, a.backwards ? w.outputs : w.inputs, count, a.bias != nullptr, a.tf32, lines};
    matmul(product, Matrix<T>{a.x, false}, Matrix<T>{numbers, !a.backwards}, a.y + first, stream);
  }
}

}  // namespace paddlemix
