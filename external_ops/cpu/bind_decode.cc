#include <list>

#include "codes_binding.h"
#include "paddlemix/ops.h"

namespace paddlemix {
namespace {

// Takes weights of either kind out of their tensors, one after the other.
class Weights {
 public:
  // `forms`: of each weight its columns, and its block, 0 in floating point.
  Weights(const Tensors& tensors, const std::vector<int64_t>& forms) : tensor_(tensors.data()), form_(forms.data()) {}

  int64_t columns() const { return *form_; }

  Weight next(int64_t in) {
    const Tensor* const from = tensor_;
    const int64_t out = form_[0], block = form_[1];
    form_ += 2;
    tensor_ += block ? kTensorsOfCodes : 1;
    if (!block) return {numbers(from[0])};
    codes_.push_back(codes_of(from[0], from[1], from[2], from[3], from[4], out, in, block));
    return {nullptr, &codes_.back()};
  }

 private:
  const Tensor* tensor_;
  const int64_t* form_;
  std::list<Codes> codes_;  // what has been taken points into it
};

// `keys` and `values` are written to, in place: they are a cache that the caller owns. Weights are those of the
// projections, one for each bias, of the output, the gate, and up and down.
Tensors DecodeBlockForward(const Tensor& x, const Tensor& attention_norm, const Tensors& tensors, const Tensors& biases,
                           const Tensor& query_cos, const Tensor& query_sin, const Tensor& key_cos,
                           const Tensor& key_sin, Tensor& keys, Tensor& values, const Tensor& visible,  // NOLINT
                           const Tensor& feed_forward_norm, const std::vector<int64_t>& forms, float epsilon,
                           int64_t length) {
  const int64_t groups = keys.shape()[2], size = keys.shape()[3];
  Weights weights(tensors, forms);
  std::vector<Projection> projections;
  int64_t columns = 0;
  for (const Tensor& bias : biases) {
    projections.push_back({{}, numbers(bias), weights.columns()});
    projections.back().weight = weights.next(last(x));
    columns += projections.back().columns;
  }
  DecodeBlock op{};
  op.rows = rows(x), op.hidden = last(x), op.heads = columns / size - 2 * groups, op.groups = groups, op.size = size;
  op.epsilon = epsilon;
  op.x = numbers(x);
  op.attention_norm = numbers(attention_norm);
  op.projections = projections.data(), op.projection_count = projections.size();
  op.query_cos = numbers(query_cos), op.query_sin = numbers(query_sin);
  op.key_cos = numbers(key_cos), op.key_sin = numbers(key_sin);
  op.keys = keys.data<float>(), op.values = values.data<float>();
  op.capacity = keys.shape()[1], op.length = length;
  op.visible = visible.numel() ? visible.data<uint8_t>() : nullptr;
  op.feed_forward_norm = numbers(feed_forward_norm);
  op.output = weights.next(op.heads * size);
  op.inner = weights.columns();
  op.gate = weights.next(op.hidden), op.up = weights.next(op.hidden), op.down = weights.next(op.inner);
  Tensor y = allocate_like(x);
  decode_block(op, y.data<float>());
  return {y};
}

}  // namespace
}  // namespace paddlemix

PD_BUILD_OP(paddlemix_decode_block)
    .Inputs({"X", "AttentionNorm", paddle::Vec("Weights"), paddle::Vec("Biases"), "QueryCos", "QuerySin", "KeyCos",
             "KeySin", "Keys", "Values", "Visible", "FeedForwardNorm"})
    .Outputs({"Y", "KeysOut", "ValuesOut"})
    .Attrs({"forms: std::vector<int64_t>", "epsilon: float", "length: int64_t"})
    .SetInplaceMap({{"Keys", "KeysOut"}, {"Values", "ValuesOut"}})
    .SetKernelFn(PD_KERNEL(paddlemix::DecodeBlockForward));
