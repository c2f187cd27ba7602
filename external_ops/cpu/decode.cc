// Decoder blocks on few rows: one team of threads from the first one's beginning to the last one's end. Each step takes
// tens of microseconds, and calling an op and starting its threads would take as long again.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "paddlemix/ops.h"
#include "paddlemix/scratch.h"
#include "paddlemix/threads.h"

namespace paddlemix {
namespace {

// The fewest columns that a thread takes: a cache line.
constexpr int64_t kColumns = 16;

// By the work of one block: where threads lose their cores they wait for one another in each.
int team_size(const Decode& op) {
  constexpr int64_t kWork = 1 << 17;  // multiplications that are worth a thread
  const int64_t weights = op.hidden * ((2 * op.heads + 2 * op.groups) * op.size + 3 * op.inner);
  return threads_for(op.rows * weights / kWork, kTeamWorthWaking);
}

// What one step leaves for the next, and a block for the next one.
struct Rooms {
  explicit Rooms(const Decode& op)
      : qkv(op.rows * (op.heads + 2 * op.groups) * op.size),
        mixed(op.rows * op.heads * op.size),
        normed(op.rows * op.hidden),
        added(op.rows * op.hidden),
        sum(op.rows * op.hidden),
        out(op.block_count > 1 ? op.rows * op.hidden : 0),
        gate(op.rows * op.inner),
        up(op.rows * op.inner),
        inverse(op.rows),
        statistics(op.rows * op.heads * 2) {}

  Scratch<float> qkv, mixed, normed, added, sum, out, gate, up, inverse, statistics;
};

// Columns [begin, end) of x times a weight of either kind; `op.weight` is not looked at.
void multiply(const Weight& weight, FewRows op, int64_t begin, int64_t end) {
  if (weight.codes) return kernels().coded_rows({op.x, weight.codes, op.bias, op.y, op.rows, op.y_stride}, begin, end);
  op.weight = weight.numbers;
  kernels().few_rows_matmul(op, begin, end);
}

// Columns [begin, end) of the projections side by side.
void project(const Decode& op, const DecoderBlock& block, const Rooms& rooms, int64_t begin, int64_t end) {
  const int64_t width = (op.heads + 2 * op.groups) * op.size;
  int64_t offset = 0;
  for (int64_t i = 0; i < block.projection_count; ++i) {
    const Projection& p = block.projections[i];
    const int64_t from = std::max<int64_t>(begin - offset, 0), to = std::min(end - offset, p.columns);
    if (from < to)
      multiply(p.weight, {rooms.normed, nullptr, p.bias, rooms.qkv + offset, op.rows, op.hidden, p.columns, width}, from,
               to);
    offset += p.columns;
  }
}

// Rotates the heads of one group of one row, writes key and value to the cache, and attends to it.
void attend(const Decode& op, const DecoderBlock& block, const Rooms& rooms, int64_t row, int64_t group) {
  const int64_t half = op.size / 2, shared = op.heads / op.groups, width = (op.heads + 2 * op.groups) * op.size;
  float* const queries = rooms.qkv + row * width;
  const float* const key = queries + (op.heads + group) * op.size;
  const int64_t sequence_start = row * op.capacity * op.groups * op.size;
  const int64_t place = sequence_start + (op.length * op.groups + group) * op.size;
  float* const query = queries + group * shared * op.size;
  const float *cos = op.query_cos + row * half, *sin = op.query_sin + row * half;
  kernels().rotate({query, query, 0, 0, cos, sin, shared, op.size, false}, 0, 1);
  cos = op.key_cos + row * half, sin = op.key_sin + row * half;
  kernels().rotate({key, block.keys + place, 0, 0, cos, sin, 1, op.size, false}, 0, 1);
  std::memcpy(block.values + place, key + op.groups * op.size, sizeof(float) * op.size);

  const Sequence sequence{0, 1, 0, op.length + 1};
  Attention attention{};
  attention.query = queries;
  attention.key = block.keys + sequence_start;
  attention.value = block.values + sequence_start;
  attention.visible = op.visible ? op.visible + row * (op.length + 1) : nullptr;
  attention.sequences = &sequence;
  attention.sequence_count = 1;
  attention.query_stride = width;
  attention.key_stride = op.groups * op.size;
  attention.heads = op.heads;
  attention.groups = op.groups;
  attention.size = op.size;
  attention.scale = 1.0f / std::sqrt(static_cast<float>(op.size));
  attention.causal = true;
  attention.out = rooms.mixed + row * op.heads * op.size;
  attention.statistics = rooms.statistics + row * op.heads * 2;
  kernels().attention_few(attention, 0, group);
}

void gate(const Decode& op, const DecoderBlock& block, const Rooms& rooms, int64_t begin, int64_t end) {
  for (const auto& [weight, y] : {std::pair<const Weight&, float*>{block.gate, rooms.gate}, {block.up, rooms.up}})
    multiply(weight, {rooms.normed, nullptr, nullptr, y, op.rows, op.hidden, op.inner, op.inner}, begin, end);
  for (int64_t row = 0; row < op.rows; ++row) {
    float* const gated = rooms.gate + row * op.inner + begin;
    kernels().swiglu(gated, rooms.up + row * op.inner + begin, gated, end - begin);
  }
}

// Every group's keys and values are read once a row, as a matrix of its own.
void count_products(const Decode& op, const DecoderBlock& block) {
  const auto together = [&](const Weight& weight, int64_t in, int64_t out) {
    count_product(op.rows, in, out, 1, Sharing::kTogether, weight.codes ? bytes_of(*weight.codes) : 0);
  };
  for (int64_t i = 0; i < block.projection_count; ++i)
    together(block.projections[i].weight, op.hidden, block.projections[i].columns);
  count_product(op.heads / op.groups, op.size, op.length + 1, 2 * op.rows * op.groups, Sharing::kAlone);
  together(block.output, op.heads * op.size, op.hidden);
  together(block.gate, op.hidden, op.inner);
  together(block.up, op.hidden, op.inner);
  together(block.down, op.inner, op.hidden);
}

// Takes rows x through a block, on all threads; what each of them writes the others may read once all have met.
void take_through(const Decode& op, const DecoderBlock& block, const Rooms& rooms, const Member& member, const float* x,
                  float* y) {
  member.share(op.rows, 1, [&](int64_t begin, int64_t end) {
    const RmsNorm norm{x, nullptr, block.attention_norm, nullptr, rooms.normed, rooms.inverse, op.hidden, block.epsilon};
    kernels().rms_norm(norm, begin, end);
  });
  member.meet();
  member.share((op.heads + 2 * op.groups) * op.size, kColumns,
               [&](int64_t begin, int64_t end) { project(op, block, rooms, begin, end); });
  member.meet();
  member.share(op.rows * op.groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) attend(op, block, rooms, i / op.groups, i % op.groups);
  });
  member.meet();
  member.share(op.hidden, kColumns, [&](int64_t begin, int64_t end) {
    const int64_t width = op.heads * op.size;
    multiply(block.output, {rooms.mixed, nullptr, nullptr, rooms.added, op.rows, width, op.hidden, op.hidden}, begin,
             end);
  });
  member.meet();
  member.share(op.rows, 1, [&](int64_t begin, int64_t end) {
    const RmsNorm norm{x,         rooms.added, block.feed_forward_norm, rooms.sum, rooms.normed, rooms.inverse,
                       op.hidden, block.epsilon};
    kernels().rms_norm(norm, begin, end);
  });
  member.meet();
  member.share(op.inner, kColumns, [&](int64_t begin, int64_t end) { gate(op, block, rooms, begin, end); });
  member.meet();
  member.share(op.hidden, kColumns, [&](int64_t begin, int64_t end) {
    multiply(block.down, {rooms.gate, nullptr, nullptr, y, op.rows, op.inner, op.hidden, op.hidden}, begin, end);
    for (int64_t row = 0; row < op.rows; ++row)
      for (int64_t i = row * op.hidden + begin; i < row * op.hidden + end; ++i) y[i] += rooms.sum[i];
  });
}

}  // namespace

void decode(const Decode& op, float* y) {
  const Rooms rooms(op);
  for (int64_t i = 0; i < op.block_count; ++i) count_products(op, op.blocks[i]);
  run_team(team_size(op), [&](const Member& member) {
    for (int64_t i = 0; i < op.block_count; ++i) {
      if (i) member.meet();
      // One block's result is the next one's x; they take turns, and the last one's is y.
      const bool odd = (op.block_count - i) % 2;
      take_through(op, op.blocks[i], rooms, member, i ? (odd ? rooms.out.get() : y) : op.x, odd ? y : rooms.out.get());
    }
  });
}

}  // namespace paddlemix
