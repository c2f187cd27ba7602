// Weights that are held as codes of 4 or 8 bits, and what the kernels compute with them.
#pragma once

#include <cstdint>

namespace paddlemix {

// A weight [out, in] in blocks of consecutive numbers of the flattened weight, which share a scale and a zero: a number
// is (value of its code - zero) * scale.
struct Codes {
  int64_t out, in, block;
  int bits;                // of a code, 4 or 8
  const uint8_t* codes;    // of two in a byte the lower bits come first
  const float* values;     // what the codes stand for: of 4 bits in pairs, for each byte, of 8 bits one for each
  const float* scales;     // [ceil(out * in / block)]
  const float* zeros;      // likewise, or null for 0
  const int64_t* order;    // [in], the input that each column is for; null where column i is for input i

  // The value of code i.
  float value(int64_t i) const { return values[bits == 4 ? 2 * i : i]; }
};

// y[rows, out] = x[rows, in] weight^T + bias[out].
struct CodedRows {
  const float* x;
  const Codes* weight;
  const float* bias;  // or null
  float* y;           // rows `y_stride` numbers apart
  int64_t rows, y_stride;
};

// Part of a weight in floating point, columns in the order of the codes.
struct Unpacked {
  const Codes* weight;
  int64_t first_column, columns;  // the first is a multiple of kColumnStep
  float* numbers;                 // [outputs, columns], of the outputs that are asked for
};

// Outputs that the threads' shares are multiples of: whole vectors, for any instruction set.
constexpr int64_t kOutputStep = 16;
// Columns that a part begins at a multiple of: whole vectors of words of codes.
constexpr int64_t kColumnStep = 128;

}  // namespace paddlemix
