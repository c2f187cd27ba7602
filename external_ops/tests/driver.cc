// Runs every kernel at odd sizes and on several threads, for AddressSanitizer and ThreadSanitizer: `sh tests/run.sh`.
// Results are compared with plain loops where these are short, so that a run that computes nothing fails.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "paddlemix/ops.h"
#include "paddlemix/threads.h"

using namespace paddlemix;
using Floats = std::vector<float>;

static std::mt19937 generator(0);

static Floats normal(int64_t count) {
  Floats x(count);
  std::normal_distribution<float> draw;
  for (float& value : x) value = draw(generator);
  return x;
}

static void expect_close(const char* what, float found, float wanted) {
  if (std::fabs(found - wanted) <= 1e-4f * (1.0f + std::fabs(wanted))) return;
  std::fprintf(stderr, "%s: %g, expected %g\n", what, found, wanted);
  std::exit(1);
}

static void norms(int64_t rows, int64_t size) {
  const Floats x = normal(rows * size), residual = normal(rows * size), weight = normal(size), up = normal(rows * size);
  Floats y(rows * size), sum(rows * size), inverse(rows), mean(rows), x_grad(rows * size), w_grad(size), b_grad(size);
  rms_norm({x.data(), residual.data(), weight.data(), sum.data(), y.data(), inverse.data(), size, 1e-6f}, rows);
  rms_norm_grad({sum.data(), weight.data(), inverse.data(), up.data(), up.data(), x_grad.data(), w_grad.data(), size},
                rows);
  layer_norm({x.data(), weight.data(), weight.data(), y.data(), mean.data(), inverse.data(), size, 1e-6f}, rows);
  layer_norm_grad({x.data(), weight.data(), mean.data(), inverse.data(), up.data(), x_grad.data(), w_grad.data(),
                   b_grad.data(), size},
                  rows);
  double total = 0.0;
  for (int64_t row = 0; row < rows; ++row) total += up[row * size + size - 1];
  expect_close("layer_norm bias gradient", b_grad[size - 1], static_cast<float>(total));
}

static void elements(int64_t count) {
  const Floats x = normal(count), up = normal(count);
  Floats y(count), x_grad(count), up_grad(count);
  swiglu(x.data(), up.data(), y.data(), count);
  expect_close("swiglu", y[count - 1], x[count - 1] / (1 + std::exp(-x[count - 1])) * up[count - 1]);
  swiglu_grad(x.data(), up.data(), y.data(), x_grad.data(), up_grad.data(), count);
  for (const Activation kind : {Activation::kGelu, Activation::kQuickGelu}) {
    activate(kind, x.data(), y.data(), count);
    activate_grad(kind, x.data(), up.data(), x_grad.data(), count);
  }
}

static void adamw_steps(const std::vector<int64_t>& sizes) {
  std::vector<Floats> parameters, gradients, firsts, seconds, before;
  std::vector<AdamW> steps;
  std::vector<const float*> places;
  for (const int64_t size : sizes) {
    parameters.push_back(normal(size)), gradients.push_back(normal(size));
    firsts.push_back(normal(size)), seconds.push_back(Floats(size, 0.25f));
  }
  before = parameters;
  const std::vector<Floats> means = firsts;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    steps.push_back({parameters[i].data(), gradients[i].data(), firsts[i].data(), seconds[i].data(), 0.5f, 0.75f, 0.5f,
                     0.125f, 0.25f, 0.01f});
    places.push_back(gradients[i].data());
  }
  std::vector<double> sums(sizes.size());
  squared_norms(places.data(), sizes.data(), sizes.size(), sums.data());
  adamw(steps.data(), sizes.data(), sizes.size());
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    double sum = 0.0;
    for (int64_t j = 0; j < sizes[i]; ++j) {
      const float gradient = 0.5f * gradients[i][j], first = 0.75f * means[i][j] + 0.25f * gradient;
      const float second = 0.5f * 0.25f + 0.5f * gradient * gradient;
      expect_close("adamw", parameters[i][j], 0.875f * before[i][j] - 0.25f * first / (std::sqrt(second) + 0.01f));
      expect_close("adamw's first moment", firsts[i][j], first);
      expect_close("adamw's second moment", seconds[i][j], second);
      sum += static_cast<double>(gradients[i][j]) * gradients[i][j];
    }
    expect_close("squared norm", static_cast<float>(sums[i]), static_cast<float>(sum));
  }
}

static void rotations(int64_t tokens, int64_t heads, int64_t size) {
  const Floats x = normal(tokens * heads * size), angle = normal(tokens * size / 2);
  Floats y(x.size()), cos(angle), sin(angle);
  for (float& value : cos) value = std::cos(value);
  for (float& value : sin) value = std::sin(value);
  const int64_t stride = heads * size;
  rotate({x.data(), y.data(), stride, stride, cos.data(), sin.data(), heads, size, false}, tokens);
  rotate({y.data(), y.data(), stride, stride, cos.data(), sin.data(), heads, size, true}, tokens);
  expect_close("rotated there and back", y.back(), x.back());
}

static void linears(int64_t rows, int64_t in, int64_t out, bool transposed, bool rounded) {
  const Floats x = normal(rows * in), weight = normal(in * out), bias = normal(out), up = normal(rows * out);
  Floats y(rows * out), before(rows * out), x_grad(rows * in), weight_grad(in * out), bias_grad(out);
  const Linear op{rows, in, out, transposed, Activation::kGelu, rounded};
  linear(op, x.data(), weight.data(), bias.data(), before.data(), y.data());
  linear_grad(op, x.data(), weight.data(), before.data(), up.data(), x_grad.data(), weight_grad.data(),
              bias_grad.data());
  if (rounded) return;
  double wanted = bias[0];
  for (int64_t i = 0; i < in; ++i) wanted += x[i] * weight[transposed ? i : i * out];
  expect_close("linear", before[0], static_cast<float>(wanted));
}

static void cross_entropies(int64_t rows, int64_t size, int64_t vocabulary, bool transposed) {
  const Floats hidden = normal(rows * size), weight = normal(size * vocabulary), scale(rows, 1.0f / rows);
  Floats hidden_grad(rows * size), weight_grad(size * vocabulary);
  std::vector<int64_t> target(rows);
  for (int64_t row = 0; row < rows; ++row) target[row] = (row * 7) % vocabulary;
  const LinearCrossEntropy op{rows, size, vocabulary, transposed, false};
  const float loss = linear_cross_entropy(op, hidden.data(), weight.data(), target.data(), scale.data(),
                                          hidden_grad.data(), weight_grad.data());
  if (!(loss > 0.0f)) expect_close("linear_cross_entropy", loss, 1.0f);
}

static void attentions(int64_t queries, int64_t keys, int64_t heads, int64_t groups, int64_t size, bool causal,
                       bool padded) {
  const Floats query = normal(2 * queries * heads * size), key = normal(2 * keys * groups * size), value = normal(2 * keys * groups * size);
  std::vector<uint8_t> visible(2 * keys, 1);
  if (padded) visible[0] = visible[2 * keys - 1] = 0;
  Floats out(query.size()), statistics(4 * queries * heads), delta(2 * queries * heads), up = normal(query.size());
  Floats query_grad(query.size()), key_grad(key.size()), value_grad(value.size());
  const std::vector<Sequence> sequences{{0, queries, 0, keys}, {queries, queries, keys, keys}};
  Attention op{};
  op.query = query.data(), op.key = key.data(), op.value = value.data();
  op.visible = padded ? visible.data() : nullptr;
  op.sequences = sequences.data(), op.sequence_count = 2;
  op.query_stride = heads * size, op.key_stride = groups * size;
  op.heads = heads, op.groups = groups, op.size = size, op.scale = 0.3f, op.causal = causal;
  op.out = out.data(), op.statistics = statistics.data();
  attention(op);
  attention_grad({op, up.data(), delta.data(), query_grad.data(), key_grad.data(), value_grad.data()}, 2 * queries);
  // The weights of a query add up to one, so its values' gradients add up to its own.
  double given = 0.0, found = 0.0;
  for (const float g : up) given += g;
  for (const float g : value_grad) found += g;
  expect_close("attention's value gradient", static_cast<float>(found), static_cast<float>(given));
}

// A weight whose tensors end where its numbers end, so that reading behind them is seen.
struct CodedWeight {
  Floats values, scales, zeros;
  std::vector<uint8_t> bytes;
  std::vector<int64_t> order;
  Codes codes;

  // `levels`: values of 4 bits that are no whole numbers.
  CodedWeight(int64_t out, int64_t in, int64_t block, int bits, bool levels, bool has_zeros, bool ordered) {
    const int64_t numbers = out * in, blocks = (numbers + block - 1) / block;
    bytes.resize((numbers * bits + 7) / 8);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(generator());
    values.resize(bits == 4 ? 512 : 256);
    for (int64_t i = 0; i < 256; ++i) {
      if (bits == 8) values[i] = static_cast<float>(i - 100);
      if (bits == 4) values[2 * i] = levels ? std::sin(i & 15) : i & 15, values[2 * i + 1] = levels ? std::sin(i >> 4) : i >> 4;
    }
    scales = normal(blocks), zeros = normal(has_zeros ? blocks : 0);
    for (int64_t i = 0; ordered && i < in; ++i) order.push_back((i * 7 + 3) % in);
    if (in % 7 == 0) order.clear();
    codes = {out, in, block, bits, bytes.data(), values.data(), scales.data(), has_zeros ? zeros.data() : nullptr,
             order.empty() ? nullptr : order.data()};
  }
  CodedWeight(const CodedWeight&) = delete;

  float number(int64_t output, int64_t column) const {
    const int64_t n = output * codes.in + column, block = n / codes.block;
    const int code = codes.bits == 8 ? bytes[n] : bytes[n / 2] >> (n % 2 * 4) & 15;
    return (codes.value(code) - (zeros.empty() ? 0.0f : zeros[block])) * scales[block];
  }
};

static void coded_linears(int64_t rows, const CodedWeight& weight) {
  const auto& [out, in, block, bits, bytes, values, scales, zeros, order] = weight.codes;
  const Floats x = normal(rows * in), bias = normal(out), up = normal(rows * out);
  Floats y(rows * out), x_grad(rows * in);
  coded_linear({x.data(), &weight.codes, bias.data(), y.data(), rows, out}, false);
  coded_linear_grad(weight.codes, rows, up.data(), false, x_grad.data());
  for (const int64_t row : {int64_t{0}, rows - 1})
    for (int64_t output = 0; output < out; ++output) {
      double wanted = bias[output], size = 0.0;
      for (int64_t i = 0; i < in; ++i) {
        const double part = x[row * in + (order ? order[i] : i)] * weight.number(output, i);
        wanted += part, size += std::fabs(part);
      }
      if (std::fabs(y[row * out + output] - wanted) > 1e-5 * (1.0 + size))
        expect_close("coded_linear", y[row * out + output], static_cast<float>(wanted));
    }
  for (int64_t i = 0; i < in; ++i) {
    double wanted = 0.0, size = 0.0;
    for (int64_t output = 0; output < out; ++output) {
      const double part = up[(rows - 1) * out + output] * weight.number(output, i);
      wanted += part, size += std::fabs(part);
    }
    const float found = x_grad[(rows - 1) * in + (order ? order[i] : i)];
    if (std::fabs(found - wanted) > 1e-5 * (1.0 + size))
      expect_close("coded_linear's gradient", found, static_cast<float>(wanted));
  }
}

static void all_coded_linears() {
  struct Form {
    int64_t out, in, block;
  };
  // Whole vectors of words, rows that end within one, blocks of a whole row, and rows that blocks run over.
  for (const Form& form : {Form{37, 256, 32}, {18, 256, 64}, {35, 384, 128}, {3, 176, 16}, {5, 96, 96}, {17, 52, 52},
                           {6, 66, 66}, {33, 5, 64}, {4, 7, 7}, {1, 1, 1}, {9, 40, 64}, {300, 128, 128}})
    for (const bool ordered : {false, true})
      for (const bool has_zeros : {false, true})
        for (const int kind : {0, 1, 2}) {
          const CodedWeight weight(form.out, form.in, form.block, kind == 2 ? 8 : 4, kind == 1, has_zeros, ordered);
          for (const int64_t rows : {1, 2, 3, 7, 17}) coded_linears(rows, weight);
        }
}

static void decode_blocks(int64_t rows, int64_t heads, int64_t groups, int64_t size, int64_t hidden, int64_t inner,
                          int64_t length, bool split, bool coded = false, int64_t block_count = 1) {
  const int64_t width = (heads + 2 * groups) * size, capacity = length + 2;
  const Floats x = normal(rows * hidden), norm(hidden, 1.0f), gate = normal(hidden * inner), bias = normal(width);
  const Floats weight = normal(hidden * width), turn(rows * size / 2, 1.0f), straight(rows * size / 2, 0.0f);
  const Floats output(heads * size * hidden, 0.0f), down(inner * hidden, 0.0f);
  Floats keys(rows * capacity * groups * size, 0.5f), values(keys), y(rows * hidden);
  const std::vector<uint8_t> visible(rows * (length + 1), 1);
  std::vector<Projection> projections{{{weight.data()}, bias.data(), width}};
  if (split) {
    const int64_t first = heads * size, second = groups * size;
    projections = {{{weight.data()}, bias.data(), first},
                   {{weight.data() + hidden * first}, nullptr, second},
                   {{weight.data() + hidden * (first + second)}, bias.data(), second}};
  }
  Decode op{rows, hidden, heads, groups, size, inner};
  DecoderBlock block{1e-6f};
  op.x = x.data(), block.attention_norm = block.feed_forward_norm = norm.data();
  block.projections = projections.data(), block.projection_count = projections.size();
  op.query_cos = op.key_cos = turn.data(), op.query_sin = op.key_sin = straight.data();
  block.keys = keys.data(), block.values = values.data(), op.capacity = capacity, op.length = length;
  op.visible = visible.data();
  block.output = {output.data()}, block.gate = block.up = {gate.data()}, block.down = {down.data()};
  const CodedWeight coded_gate(inner, hidden, hidden, 4, true, false, false);
  if (coded) block.gate = block.up = {nullptr, &coded_gate.codes};
  const std::vector<DecoderBlock> blocks(block_count, block);
  op.blocks = blocks.data(), op.block_count = block_count;
  decode(op, y.data());
  // Projections back to the hidden size that are zero leave the token as it was.
  for (int64_t i = 0; i < rows * hidden; ++i) expect_close("decode_block", y[i], x[i]);
  double mean = 0.0, key = split ? 0.0 : bias[heads * size];
  for (int64_t i = 0; i < hidden; ++i) mean += x[i] * x[i] / hidden;
  const int64_t offset = split ? hidden * heads * size : heads * size;
  for (int64_t i = 0; i < hidden; ++i)
    key += x[i] / std::sqrt(mean + 1e-6) * weight[offset + i * (split ? groups * size : width)];
  expect_close("decode_block's key", keys[length * groups * size], static_cast<float>(key));
  expect_close("a key that was there", keys[(length + 1) * groups * size], 0.5f);
}

bool has_bfloat16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

int main() {
  for (const int threads : {1, 2, 5}) {
    set_num_threads(threads);
    for (const int64_t size : {1, 3, 16, 67, 256}) norms(1 + 3 * size, size), norms(900, size);
    for (const int64_t count : {1, 15, 17, 70001}) elements(count);
    adamw_steps({0, 1, 15, 16, 17, 63, 0, 33000, 70001}), adamw_steps({}), adamw_steps({0}), adamw_steps({5});
    rotations(1, 1, 2), rotations(300, 3, 34), rotations(70, 8, 128);
    for (const bool transposed : {false, true})
      for (const int64_t rows : {1, 4, 5, 70})
        linears(rows, 37, 53, transposed, false), linears(rows, 1, 1, transposed, false);
    for (const bool widened : {true, false}) {
      if (!widened && !has_bfloat16()) continue;
      product_paths().widened = widened;
      linears(70, 37, 53, false, true), linears(70, 37, 53, true, true);
    }
    cross_entropies(70, 5, 301, false), cross_entropies(70, 5, 301, true);
    for (const bool causal : {false, true})
      for (const bool padded : {false, true}) {
        attentions(1, 1, 1, 1, 16, causal, false);
        attentions(130, 130, 4, 2, 20, causal, padded);
        attentions(1, 77, 8, 4, 64, causal, padded);
        attentions(65, 200, 2, 1, 128, causal, padded);
        attentions(64, 64, 2, 2, 33, causal, padded);
      }
    all_coded_linears();
    decode_blocks(3, 6, 3, 20, 68, 34, 70, true, true, 3), decode_blocks(1, 8, 2, 64, 128, 352, 130, false, true, 2);
    for (const bool split : {false, true}) {
      decode_blocks(1, 1, 1, 2, 1, 1, 0, split);
      decode_blocks(3, 6, 3, 20, 67, 33, 70, split);
      decode_blocks(4, 8, 2, 64, 128, 352, 130, split);
    }
  }
  std::printf("%s kernels: all ran\n", kernels().name);
}
