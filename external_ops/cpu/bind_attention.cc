#include <cstring>

#include "binding.h"
#include "paddlemix/ops.h"

namespace paddlemix {
namespace {

// Row by row of a padded batch, or sample by sample of a pack, which is a batch of one row.
std::vector<Sequence> sequences(const Tensor& query, const Tensor& key, const Tensor& ends, int64_t span) {
  std::vector<Sequence> found;
  if (ends.numel()) {
    const int32_t* end = ends.data<int32_t>();
    for (int64_t i = 0; i + 1 < ends.numel(); ++i)
      found.push_back({end[i], end[i + 1] - end[i], end[i], end[i + 1] - end[i]});
    return found;
  }
  const int64_t length = query.shape()[1], room = key.shape()[1];
  for (int64_t row = 0; row < query.shape()[0]; ++row) found.push_back({row * length, length, row * room, span});
  return found;
}

Attention describe(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& visible,
                   const Tensor& bias, const std::vector<Sequence>& sequences, bool causal) {
  const int64_t heads = query.shape()[2], groups = key.shape()[2], size = query.shape()[3];
  Attention op{};
  op.query = numbers(query);
  op.key = numbers(key);
  op.value = numbers(value);
  op.visible = visible.numel() ? visible.data<uint8_t>() : nullptr;
  op.bias = numbers(bias);
  op.bias_stride = bias.shape()[0] > 1 ? bias.numel() / bias.shape()[0] : 0;
  op.sequences = sequences.data();
  op.sequence_count = sequences.size();
  op.query_stride = heads * size;
  op.key_stride = groups * size;
  op.heads = heads;
  op.groups = groups;
  op.size = size;
  op.scale = 1.0f / std::sqrt(static_cast<float>(size));
  op.causal = causal;
  return op;
}

Tensors AttentionForward(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& visible,
                         const Tensor& bias, const Tensor& ends, bool causal, int64_t span) {
  const auto parts = sequences(query, key, ends, span);
  Attention op = describe(query, key, value, visible, bias, parts, causal);
  auto shape = query.shape();
  Tensor out = allocate(shape), statistics = allocate({shape[0], shape[1], shape[2], 2});
  op.out = out.data<float>();
  op.statistics = statistics.data<float>();
  attention(op);
  return {out, statistics};
}

Tensors AttentionBackward(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& visible,
                          const Tensor& bias, const Tensor& ends, const Tensor& out, const Tensor& statistics,
                          const Tensor& out_grad, bool causal, int64_t span) {
  const auto parts = sequences(query, key, ends, span);
  Tensor query_grad = paddle::experimental::full(query.shape(), 0.0f, query.dtype(), query.place());
  // Keys beyond the span get no gradient.
  const bool whole = ends.numel() || span == key.shape()[1];
  const auto key_like = [&] {
    return whole ? allocate_like(key) : paddle::experimental::full(key.shape(), 0.0f, key.dtype(), key.place());
  };
  Tensor key_grad = key_like(), value_grad = key_like(), delta = allocate({rows(out)});
  AttentionGrad op{describe(query, key, value, visible, bias, parts, causal),
                   numbers(out_grad),
                   delta.data<float>(),
                   query_grad.data<float>(),
                   key_grad.data<float>(),
                   value_grad.data<float>()};
  op.forward.out = const_cast<float*>(numbers(out));
  op.forward.statistics = const_cast<float*>(numbers(statistics));
  attention_grad(op, rows(out) / op.forward.heads);
  return {query_grad, key_grad, value_grad};
}

}  // namespace
}  // namespace paddlemix

using paddle::Grad;

PD_BUILD_OP(paddlemix_attention)
    .Inputs({"Query", "Key", "Value", "Visible", "Bias", "Ends"})
    .Outputs({"Out", "Statistics"})
    .Attrs({"causal: bool", "span: int64_t"})
    .SetKernelFn(PD_KERNEL(paddlemix::AttentionForward));
PD_BUILD_GRAD_OP(paddlemix_attention)
    .Inputs({"Query", "Key", "Value", "Visible", "Bias", "Ends", "Out", "Statistics", Grad("Out")})
    .Outputs({Grad("Query"), Grad("Key"), Grad("Value")})
    .Attrs({"causal: bool", "span: int64_t"})
    .SetKernelFn(PD_KERNEL(paddlemix::AttentionBackward));
