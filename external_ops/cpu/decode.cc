// Decoder blocks on few rows: one team of threads from the first one's beginning to the last one's end. Each step takes
// tens of microseconds, and calling an op and starting its threads would take as long again.
#include <algorithm>
#include <cmath>
#include <cstring>

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

// How many sums a product leaves for the next step to add up.
int64_t sums_of(const Weight& weight, int64_t rows, int64_t in, int64_t columns) {
  return weight.codes ? 1 : sums_of_few_rows(rows, in, columns);
}

// What products leave for the next step, [sums, rows, width].
class Sums {
 public:
  Sums(int64_t most, int64_t rows, int64_t width) : rows_(rows), width_(width), numbers_(most * rows * width) {}

  float* of(int64_t sum, int64_t row = 0) const { return numbers_ + (sum * rows_ + row) * width_; }

  // Adds `sums` of them up in the first; returns columns from `begin` on.
  float* add_up(int64_t sums, int64_t row, int64_t begin, int64_t end) const {
    float* const total = of(0, row);
    for (int64_t sum = 1; sum < sums; ++sum) {
      const float* const other = of(sum, row);
      for (int64_t i = begin; i < end; ++i) total[i] += other[i];
    }
    return total + begin;
  }

  int64_t width() const { return width_; }

 private:
  int64_t rows_, width_;
  Scratch<float> numbers_;
};

int64_t most_sums(const Decode& op, int64_t in) { return sums_of_few_rows(op.rows, in, 1); }

// What one step leaves for the next, and a block for the next one.
struct Rooms {
  explicit Rooms(const Decode& op)
      : qkv(most_sums(op, op.hidden), op.rows, (op.heads + 2 * op.groups) * op.size),
        added(most_sums(op, op.heads * op.size), op.rows, op.hidden),
        gate(most_sums(op, op.hidden), op.rows, op.inner),
        up(most_sums(op, op.hidden), op.rows, op.inner),
        down(most_sums(op, op.inner), op.rows, op.hidden),
        mixed(op.rows * op.heads * op.size),
        normed(op.rows * op.hidden),
        sum(op.rows * op.hidden),
        out(op.block_count > 1 ? op.rows * op.hidden : 0),
        inverse(op.rows),
        statistics(op.rows * op.heads * 2) {}

  Sums qkv, added, gate, up, down;
  Scratch<float> mixed, normed, sum, out, inverse, statistics;
};

// A member's share of x[rows, in] times a weight of either kind, and of the bias, in columns of `y` from `offset` on.
void multiply(const Member& member, const float* x, const Weight& weight, const float* bias, int64_t rows, int64_t in,
              int64_t columns, const Sums& y, int64_t offset = 0) {
  if (weight.codes) {
    const CodedRows op{x, weight.codes, bias, y.of(0) + offset, rows, y.width()};
    member.share(columns, kOutputStep, [&](int64_t begin, int64_t end) { kernels().coded_rows(op, begin, end); });
    return;
  }
  const FewRows op{x, weight.numbers, bias, y.of(0) + offset, rows, in, columns, in, y.width()};
  const int64_t sums = sums_of(weight, rows, in, columns);
  if (sums == 1) {
    member.share(columns, kColumns, [&](int64_t begin, int64_t end) { kernels().few_rows_matmul(op, begin, end); });
    return;
  }
  member.share(sums, 1, [&](int64_t first, int64_t last) {
    for (int64_t sum = first; sum < last; ++sum)
      kernels().few_rows_matmul(part_of_few_rows(op, sum, sums, y.of(sum) + offset), 0, columns);
  });
}

// The projections side by side.
void project(const Decode& op, const DecoderBlock& block, const Rooms& rooms, const Member& member) {
  int64_t offset = 0;
  for (int64_t i = 0; i < block.projection_count; ++i) {
    const Projection& p = block.projections[i];
    multiply(member, rooms.normed, p.weight, p.bias, op.rows, op.hidden, p.columns, rooms.qkv, offset);
    offset += p.columns;
  }
}

// Columns [begin, end) of what `project` has left.
float* projected(const Decode& op, const DecoderBlock& block, const Rooms& rooms, int64_t row, int64_t begin,
                 int64_t end) {
  int64_t offset = 0;
  for (int64_t i = 0; i < block.projection_count; ++i) {
    const Projection& p = block.projections[i];
    const int64_t from = std::max(begin, offset), to = std::min(end, offset + p.columns);
    if (from < to) rooms.qkv.add_up(sums_of(p.weight, op.rows, op.hidden, p.columns), row, from, to);
    offset += p.columns;
  }
  return rooms.qkv.of(0, row) + begin;
}

// Rotates the heads of one group of one row, writes key and value to the cache, and attends to it.
void attend(const Decode& op, const DecoderBlock& block, const Rooms& rooms, int64_t row, int64_t group) {
  const int64_t half = op.size / 2, shared = op.heads / op.groups;
  const auto heads = [&](int64_t first, int64_t count) {
    return projected(op, block, rooms, row, first * op.size, (first + count) * op.size);
  };
  float* const query = heads(group * shared, shared);
  const float *const key = heads(op.heads + group, 1), *const value = heads(op.heads + op.groups + group, 1);
  const int64_t sequence_start = row * op.capacity * op.groups * op.size;
  const int64_t place = sequence_start + (op.length * op.groups + group) * op.size;
  const float *cos = op.query_cos + row * half, *sin = op.query_sin + row * half;
  kernels().rotate({query, query, 0, 0, cos, sin, shared, op.size, false}, 0, 1);
  cos = op.key_cos + row * half, sin = op.key_sin + row * half;
  kernels().rotate({key, block.keys + place, 0, 0, cos, sin, 1, op.size, false}, 0, 1);
  std::memcpy(block.values + place, value, sizeof(float) * op.size);

  const Sequence sequence{0, 1, 0, op.length + 1};
  Attention attention{};
  attention.query = rooms.qkv.of(0, row);
  attention.key = block.keys + sequence_start;
  attention.value = block.values + sequence_start;
  attention.visible = op.visible ? op.visible + row * (op.length + 1) : nullptr;
  attention.sequences = &sequence;
  attention.sequence_count = 1;
  attention.query_stride = rooms.qkv.width();
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

// Columns [begin, end) of what goes down.
void gate(const Decode& op, const DecoderBlock& block, const Rooms& rooms, int64_t begin, int64_t end) {
  for (int64_t row = 0; row < op.rows; ++row) {
    float* const gate = rooms.gate.add_up(sums_of(block.gate, op.rows, op.hidden, op.inner), row, begin, end);
    kernels().swiglu(gate, rooms.up.add_up(sums_of(block.up, op.rows, op.hidden, op.inner), row, begin, end), gate, end - begin);
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
  project(op, block, rooms, member);
  member.meet();
  member.share(op.rows * op.groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) attend(op, block, rooms, i / op.groups, i % op.groups);
  });
  member.meet();
  const int64_t width = op.heads * op.size;
  multiply(member, rooms.mixed, block.output, nullptr, op.rows, width, op.hidden, rooms.added);
  member.meet();
  member.share(op.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      rooms.added.add_up(sums_of(block.output, op.rows, width, op.hidden), row, 0, op.hidden);
    const RmsNorm norm{x,
                       rooms.added.of(0),
                       block.feed_forward_norm,
                       rooms.sum,
                       rooms.normed,
                       rooms.inverse,
                       op.hidden,
                       block.epsilon};
    kernels().rms_norm(norm, begin, end);
  });
  member.meet();
  multiply(member, rooms.normed, block.gate, nullptr, op.rows, op.hidden, op.inner, rooms.gate);
  multiply(member, rooms.normed, block.up, nullptr, op.rows, op.hidden, op.inner, rooms.up);
  member.meet();
  member.share(op.inner, kColumns, [&](int64_t begin, int64_t end) { gate(op, block, rooms, begin, end); });
  member.meet();
  multiply(member, rooms.gate.of(0), block.down, nullptr, op.rows, op.inner, op.hidden, rooms.down);
  member.meet();
  member.share(op.hidden, kColumns, [&](int64_t begin, int64_t end) {
    for (int64_t row = 0; row < op.rows; ++row) {
      const float* const added = rooms.down.add_up(sums_of(block.down, op.rows, op.inner, op.hidden), row, begin, end);
      for (int64_t i = begin; i < end; ++i) y[row * op.hidden + i] = rooms.sum[row * op.hidden + i] + added[i - begin];
    }
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
