#include <atomic>
#include <list>
#include <map>
#include <memory>
#include <mutex>

#include "codes_binding.h"
#include "paddlemix/ops.h"

namespace paddlemix {
namespace {

// Decoder blocks are named once, and then by number: to hand their tensors, dozens of each, to an op takes Paddle longer
// than a token takes to compute.
struct HeldBlock {
  Tensors norms, weights, biases;
  std::vector<int64_t> forms;  // of each weight its columns, and its block, 0 in floating point
  float epsilon;
};

std::mutex holding;
std::map<int64_t, std::shared_ptr<const HeldBlock>> held;

std::shared_ptr<const HeldBlock> find(int64_t number) {
  const std::lock_guard<std::mutex> lock(holding);
  const auto found = held.find(number);
  if (found == held.end()) throw std::invalid_argument("a decoder block is not held any more");
  return found->second;
}

// `weights`: those of the projections, one for each bias, of the output, the gate, and up and down.
Tensors HoldBlock(const Tensors& norms, const Tensors& weights, const Tensors& biases,
                  const std::vector<int64_t>& forms, float epsilon) {
  static int64_t last = 0;
  Tensor number = paddle::experimental::empty({1}, paddle::DataType::INT64, paddle::CPUPlace());
  const std::lock_guard<std::mutex> lock(holding);
  held.emplace(++last, std::make_shared<const HeldBlock>(HeldBlock{norms, weights, biases, forms, epsilon}));
  number.data<int64_t>()[0] = last;
  return {number};
}

// Takes weights of either kind out of their tensors, one after the other.
class Weights {
 public:
  explicit Weights(const HeldBlock& block) : tensor_(block.weights.data()), form_(block.forms.data()) {}

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

// A block with what it points to.
struct Opened {
  std::shared_ptr<const HeldBlock> held;
  Weights weights;
  std::vector<Projection> projections;
  DecoderBlock block{};
  int64_t inner = 0;

  Opened(int64_t number, int64_t hidden, int64_t key_width) : held(find(number)), weights(*held) {
    int64_t columns = 0;
    for (const Tensor& bias : held->biases) {
      projections.push_back({{}, numbers(bias), weights.columns()});
      projections.back().weight = weights.next(hidden);
      columns += projections.back().columns;
    }
    block.epsilon = held->epsilon;
    block.attention_norm = numbers(held->norms[0]), block.feed_forward_norm = numbers(held->norms[1]);
    block.projections = projections.data(), block.projection_count = projections.size();
    block.output = weights.next(columns - 2 * key_width);
    inner = weights.columns();
    block.gate = weights.next(hidden), block.up = weights.next(hidden), block.down = weights.next(inner);
    width = columns;
  }
  Opened(const Opened&) = delete;

  int64_t width;
};

// Keys and values are written to, in place: they are caches that the caller owns.
Tensors DecodeForward(const Tensor& x, const Tensor& query_cos, const Tensor& query_sin, const Tensor& key_cos,
                      const Tensor& key_sin, const Tensors& keys, const Tensors& values, const Tensor& visible,
                      const std::vector<int64_t>& numbers_of_blocks, int64_t length) {
  const int64_t groups = keys[0].shape()[2], size = keys[0].shape()[3];
  std::list<Opened> opened;
  std::vector<DecoderBlock> blocks;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const Opened& one = opened.emplace_back(numbers_of_blocks[i], last(x), groups * size);
    blocks.push_back(one.block);
    blocks.back().keys = const_cast<float*>(numbers(keys[i]));
    blocks.back().values = const_cast<float*>(numbers(values[i]));
  }
  Decode op{};
  op.rows = rows(x), op.hidden = last(x), op.heads = opened.front().width / size - 2 * groups, op.groups = groups;
  op.size = size, op.inner = opened.front().inner;
  op.x = numbers(x);
  op.query_cos = numbers(query_cos), op.query_sin = numbers(query_sin);
  op.key_cos = numbers(key_cos), op.key_sin = numbers(key_sin);
  op.capacity = keys[0].shape()[1], op.length = length;
  op.visible = visible.numel() ? visible.data<uint8_t>() : nullptr;
  op.blocks = blocks.data(), op.block_count = blocks.size();
  Tensor y = allocate_like(x);
  decode(op, y.data<float>());
  return {y};
}

}  // namespace
}  // namespace paddlemix

extern "C" __attribute__((visibility("default"))) void paddlemix_release_block(int64_t number) {
  const std::lock_guard<std::mutex> lock(paddlemix::holding);
  paddlemix::held.erase(number);
}

PD_BUILD_OP(paddlemix_hold_block)
    .Inputs({paddle::Vec("Norms"), paddle::Vec("Weights"), paddle::Vec("Biases")})
    .Outputs({"Number"})
    .Attrs({"forms: std::vector<int64_t>", "epsilon: float"})
    .SetKernelFn(PD_KERNEL(paddlemix::HoldBlock));

PD_BUILD_OP(paddlemix_decode)
    .Inputs({"X", "QueryCos", "QuerySin", "KeyCos", "KeySin", paddle::Vec("Keys"), paddle::Vec("Values"), "Visible"})
    .Outputs({"Y"})
    .Attrs({"blocks: std::vector<int64_t>", "length: int64_t"})
    .SetKernelFn(PD_KERNEL(paddlemix::DecodeForward));
