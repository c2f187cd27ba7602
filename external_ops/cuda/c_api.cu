// The C entry points: dtypes become types, exceptions become a status and a message.
#include "c_api.h"

#include "activation.cuh"
#include "cached_attention.cuh"
#include "linear_cross_entropy.cuh"
#include "norm.cuh"
#include "quantized.cuh"
#include "rotary.cuh"

namespace paddlemix {
namespace {

thread_local std::string last_error;

template <typename Work>
auto guarded(const Work& work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::exception& error) {
    last_error = error.what();
    return -1;
  }
}

// Calls `work(T())`, and gives the status of the whole.
template <typename Work>
int run(int dtype, const Work& work) {
  return guarded([&] {
    with_dtype(dtype, work);
    return 0;
  });
}

// Calls `work(X(), Branch(), Y())`, likewise.
template <typename Work>
int run_norm(const PaddlemixNormDtypes& dtypes, const Work& work) {
  return guarded([&] {
    with_norm_dtypes(dtypes.x, dtypes.branch, dtypes.y, work);
    return 0;
  });
}

PaddlemixNormDtypes without_branch(PaddlemixNormDtypes dtypes) {
  dtypes.branch = dtypes.x;
  return dtypes;
}

// A weight or a bias of a norm from X to Y.
template <typename X, typename Y>
Scale<Narrower<X, Y>> scale_of(const void* numbers, int dtype, X, Y) {
  bool fits = dtype == PADDLEMIX_FLOAT32;
  if (!fits) with_dtype(dtype, [&](auto t) { fits = std::is_same_v<decltype(t), Narrower<X, Y>>; });
  if (numbers && !fits) throw std::invalid_argument("a weight is of another narrow dtype than the rows");
  return {numbers, dtype == PADDLEMIX_FLOAT32};
}

template <typename T>
const T* of(const void* numbers, T) {
  return static_cast<const T*>(numbers);
}

template <typename T>
T* of(void* numbers, T) {
  return static_cast<T*>(numbers);
}

cudaStream_t as_stream(void* stream) { return static_cast<cudaStream_t>(stream); }

LogitStatistics split(float* statistics, int64_t rows) {
  return {statistics, statistics + rows, statistics + 2 * rows};
}

template <typename T>
RotaryPart<T> typed(const PaddlemixRotaryPart& part) {
  return {of(part.x, T()), of(part.y, T()), part.x_stride, part.y_stride, part.heads, part.turned != 0};
}

template <typename T>
LinearCrossEntropy<T> typed(const PaddlemixCrossEntropy& op) {
  return {of(op.hidden, T()),
          {of(op.weight, T()), op.transposed != 0},
          op.target,
          op.scale,
          split(op.statistics, op.rows),
          of(op.hidden_grad, T()),
          op.wide_weight_grad ? nullptr : of(op.weight_grad, T()),
          op.wide_weight_grad ? static_cast<float*>(op.weight_grad) : nullptr,
          op.scratch,
          op.rows,
          op.size,
          op.vocabulary,
          op.first_token,
          op.rows_at_once,
          op.phases,
          op.tf32 != 0};
}

template <typename T>
CachedAttention<T> typed(const PaddlemixCachedAttention& op) {
  return {of(op.query, T()),
          of(op.key, T()),
          of(op.value, T()),
          of(op.keys, T()),
          of(op.values, T()),
          op.starts,
          op.rows,
          of(op.y, T()),
          static_cast<float*>(op.scratch),
          op.batch,
          op.heads,
          op.groups,
          op.size,
          op.capacity,
          op.length,
          static_cast<float>(kLog2OfE / std::sqrt(static_cast<double>(op.size)))};
}

QuantizedWeight typed(const PaddlemixQuantizedWeight& weight) {
  return {weight.codes,   weight.values, weight.scales, weight.zeros,
          weight.outputs, weight.inputs, weight.block,  weight.bits};
}

template <typename T>
QuantizedLinear<T> typed(const PaddlemixQuantizedLinear& op) {
  return {typed(op.weight), of(op.x, T()), of(op.bias, T()), of(op.y, T()),  op.scratch,
          op.rows,          op.at_once,    op.backwards != 0, op.tf32 != 0};
}

}  // namespace
}  // namespace paddlemix

using namespace paddlemix;  // NOLINT: this file only translates

extern "C" {

const char* paddlemix_cuda_error(void) { return last_error.c_str(); }

int paddlemix_cuda_rms_norm(const void* x, const void* branch, const void* weight, void* sum, void* y, float* inverse,
                            int64_t rows, int64_t size, float epsilon, const PaddlemixNormDtypes* dtypes,
                            void* stream) {
  return run_norm(*dtypes, [&](auto of_x, auto of_branch, auto of_y) {
    rms_norm<decltype(of_x), decltype(of_branch), decltype(of_y)>(
        {of(x, of_x), of(branch, of_branch), scale_of(weight, dtypes->weight, of_x, of_y), of(sum, of_x), of(y, of_y),
         inverse, rows, size, epsilon},
        as_stream(stream));
  });
}

int64_t paddlemix_cuda_norm_scratch(int64_t rows, int64_t size) {
  return guarded([&] { return norm_scratch(rows, size); });
}

int paddlemix_cuda_rms_norm_grad(const void* x, const void* weight, const float* inverse, const void* y_grad,
                                 const void* sum_grad, void* x_grad, void* branch_grad, void* weight_grad,
                                 void* scratch, int64_t rows, int64_t size, const PaddlemixNormDtypes* dtypes,
                                 void* stream) {
  return run_norm(*dtypes, [&](auto of_x, auto of_branch, auto of_y) {
    rms_norm_grad<decltype(of_x), decltype(of_branch), decltype(of_y)>(
        {of(x, of_x), scale_of(weight, dtypes->weight, of_x, of_y), inverse, of(y_grad, of_y), of(sum_grad, of_x),
         of(x_grad, of_x), of(branch_grad, of_branch), weight_grad, static_cast<float*>(scratch), rows, size,
         dtypes->weight},
        as_stream(stream));
  });
}

int paddlemix_cuda_layer_norm(const void* x, const void* weight, const void* bias, void* y, float* mean,
                              float* inverse, int64_t rows, int64_t size, float epsilon,
                              const PaddlemixNormDtypes* dtypes, void* stream) {
  return run_norm(without_branch(*dtypes), [&](auto of_x, auto, auto of_y) {
    layer_norm<decltype(of_x), decltype(of_y)>(
        {of(x, of_x), scale_of(weight, dtypes->weight, of_x, of_y), scale_of(bias, dtypes->bias, of_x, of_y),
         of(y, of_y), mean, inverse, rows, size, epsilon},
        as_stream(stream));
  });
}

int paddlemix_cuda_layer_norm_grad(const void* x, const void* weight, const float* mean, const float* inverse,
                                   const void* y_grad, void* x_grad, void* weight_grad, void* bias_grad, void* scratch,
                                   int64_t rows, int64_t size, const PaddlemixNormDtypes* dtypes, void* stream) {
  return run_norm(without_branch(*dtypes), [&](auto of_x, auto, auto of_y) {
    float* weight_shares = static_cast<float*>(scratch);
    float* bias_shares = weight_shares + norm_scratch(rows, size) / (2 * static_cast<int64_t>(sizeof(float)));
    layer_norm_grad<decltype(of_x), decltype(of_y)>(
        {of(x, of_x), scale_of(weight, dtypes->weight, of_x, of_y), mean, inverse, of(y_grad, of_y), of(x_grad, of_x),
         weight_grad, bias_grad, weight_shares, bias_shares, rows, size, dtypes->weight, dtypes->bias},
        as_stream(stream));
  });
}

int paddlemix_cuda_rotary(const PaddlemixRotaryPart* parts, int count, const float* cos, const float* sin,
                          int64_t tokens, int half, int backwards, int dtype, void* stream) {
  return run(dtype, [&](auto t) {
    if (count < 1 || count > kMostParts) throw std::invalid_argument("expected 1 to 3 parts to turn");
    Rotary<decltype(t)> op{{}, cos, sin, tokens, half, backwards != 0};
    for (int part = 0; part < count; ++part) op.parts[part] = typed<decltype(t)>(parts[part]);
    rotate(op, count, as_stream(stream));
  });
}

int paddlemix_cuda_swiglu(const void* gate, const void* up, void* y, int64_t count, int dtype, void* stream) {
  return run(dtype, [&](auto t) {
    compute<Swiglu, decltype(t)>({{of(gate, t), of(up, t)}, {of(y, t)}, count}, as_stream(stream));
  });
}

int paddlemix_cuda_swiglu_grad(const void* gate, const void* up, const void* y_grad, void* gate_grad, void* up_grad,
                               int64_t count, int dtype, void* stream) {
  return run(dtype, [&](auto t) {
    compute<SwigluGrad, decltype(t)>(
        {{of(gate, t), of(up, t), of(y_grad, t)}, {of(gate_grad, t), of(up_grad, t)}, count}, as_stream(stream));
  });
}

int paddlemix_cuda_activation(int kind, const void* x, void* y, int64_t count, int dtype, void* stream) {
  return run(dtype, [&](auto t) {
    if (kind == PADDLEMIX_GELU)
      return compute<Gelu, decltype(t)>({{of(x, t)}, {of(y, t)}, count}, as_stream(stream));
    if (kind == PADDLEMIX_QUICK_GELU)
      return compute<QuickGelu, decltype(t)>({{of(x, t)}, {of(y, t)}, count}, as_stream(stream));
    throw std::invalid_argument("activation is " + std::to_string(kind) + "; expected 1 or 2");
  });
}

int paddlemix_cuda_activation_grad(int kind, const void* x, const void* y_grad, void* x_grad, int64_t count, int dtype,
                                   void* stream) {
  return run(dtype, [&](auto t) {
    if (kind == PADDLEMIX_GELU)
      return compute<GeluGrad, decltype(t)>({{of(x, t), of(y_grad, t)}, {of(x_grad, t)}, count}, as_stream(stream));
    if (kind == PADDLEMIX_QUICK_GELU)
      return compute<QuickGeluGrad, decltype(t)>({{of(x, t), of(y_grad, t)}, {of(x_grad, t)}, count},
                                                 as_stream(stream));
    throw std::invalid_argument("activation is " + std::to_string(kind) + "; expected 1 or 2");
  });
}

int64_t paddlemix_cuda_cross_entropy_scratch(const PaddlemixCrossEntropy* op, int dtype) {
  return guarded([&] {
    int64_t bytes = 0;
    with_dtype(dtype, [&](auto t) {
      const bool is_summed = op->weight_grad && !op->wide_weight_grad;
      bytes = plan<decltype(t)>(op->rows, op->size, op->vocabulary, op->rows_at_once, is_summed).bytes();
    });
    return bytes;
  });
}

int paddlemix_cuda_linear_cross_entropy(const PaddlemixCrossEntropy* op, int dtype, void* stream) {
  return run(dtype, [&](auto t) { linear_cross_entropy(typed<decltype(t)>(*op), as_stream(stream)); });
}

int paddlemix_cuda_cost(const float* statistics, const float* scale, int64_t rows, float* loss, void* stream) {
  return guarded([&] {
    cost(split(const_cast<float*>(statistics), rows), scale, rows, loss, as_stream(stream));
    return 0;
  });
}

int paddlemix_cuda_scale(void* x, const float* factor, int64_t count, int dtype, void* stream) {
  return run(dtype, [&](auto t) { scale(of(x, t), factor, count, as_stream(stream)); });
}

int64_t paddlemix_cuda_cached_attention_scratch(const PaddlemixCachedAttention* op) {
  return guarded([&] { return cached_attention_scratch(op->batch, op->heads, op->groups, op->size, op->length); });
}

int paddlemix_cuda_cached_attention(const PaddlemixCachedAttention* op, int dtype, void* stream) {
  return run(dtype, [&](auto t) { cached_attention(typed<decltype(t)>(*op), as_stream(stream)); });
}

int64_t paddlemix_cuda_quantized_linear_scratch(const PaddlemixQuantizedLinear* op, int dtype) {
  return guarded([&] {
    int64_t bytes = 0;
    with_dtype(dtype, [&](auto t) { bytes = quantized_linear_scratch(typed<decltype(t)>(*op)); });
    return bytes;
  });
}

int paddlemix_cuda_quantized_linear(const PaddlemixQuantizedLinear* op, int dtype, void* stream) {
  return run(dtype, [&](auto t) { quantized_linear(typed<decltype(t)>(*op), as_stream(stream)); });
}

int paddlemix_cuda_dequantize(const PaddlemixQuantizedWeight* weight, int64_t first_output, int64_t outputs,
                              int64_t first_input, int64_t inputs, void* y, int dtype, void* stream) {
  return run(dtype, [&](auto t) {
    dequantize(typed(*weight), {first_output, outputs, first_input, inputs}, of(y, t), as_stream(stream));
  });
}
}
