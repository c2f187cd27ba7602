#include "binding.h"
#include "paddlemix/ops.h"

namespace paddlemix {
namespace {

// `keys` and `values` are written to, in place: they are a cache that the caller owns.
Tensors DecodeBlockForward(const Tensor& x, const Tensor& attention_norm, const Tensors& weights, const Tensors& biases,
                           const Tensor& query_cos, const Tensor& query_sin, const Tensor& key_cos,
                           const Tensor& key_sin, Tensor& keys, Tensor& values, const Tensor& visible,  // NOLINT
                           const Tensor& output, const Tensor& feed_forward_norm, const Tensor& gate, const Tensor& up,
                           const Tensor& down, float epsilon, int64_t length) {
  const int64_t groups = keys.shape()[2], size = keys.shape()[3];
  std::vector<Projection> projections;
  int64_t columns = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    projections.push_back({numbers(weights[i]), numbers(biases[i]), last(weights[i])});
    columns += last(weights[i]);
  }
  DecodeBlock op{};
  op.rows = rows(x), op.hidden = last(x), op.heads = columns / size - 2 * groups, op.groups = groups, op.size = size;
  op.inner = last(gate);
  op.epsilon = epsilon;
  op.x = numbers(x);
  op.attention_norm = numbers(attention_norm);
  op.projections = projections.data(), op.projection_count = projections.size();
  op.query_cos = numbers(query_cos), op.query_sin = numbers(query_sin);
  op.key_cos = numbers(key_cos), op.key_sin = numbers(key_sin);
  op.keys = keys.data<float>(), op.values = values.data<float>();
  op.capacity = keys.shape()[1], op.length = length;
  op.visible = visible.numel() ? visible.data<uint8_t>() : nullptr;
  op.output = numbers(output);
  op.feed_forward_norm = numbers(feed_forward_norm);
  op.gate = numbers(gate), op.up = numbers(up), op.down = numbers(down);
  Tensor y = allocate_like(x);
  decode_block(op, y.data<float>());
  return {y};
}

}  // namespace
}  // namespace paddlemix

PD_BUILD_OP(paddlemix_decode_block)
    .Inputs({"X", "AttentionNorm", paddle::Vec("Weights"), paddle::Vec("Biases"), "QueryCos", "QuerySin", "KeyCos",
             "KeySin", "Keys", "Values", "Visible", "Output", "FeedForwardNorm", "Gate", "Up", "Down"})
    .Outputs({"Y", "KeysOut", "ValuesOut"})
    .Attrs({"epsilon: float", "length: int64_t"})
    .SetInplaceMap({{"Keys", "KeysOut"}, {"Values", "ValuesOut"}})
    .SetKernelFn(PD_KERNEL(paddlemix::DecodeBlockForward));
