// Attention divided among threads: tiles of queries forward, blocks of keys backward.
#include <cstring>
#include <vector>

#include "paddlemix/ops.h"
#include "paddlemix/threads.h"

namespace paddlemix {
namespace {

int64_t blocks(int64_t count) { return (count + kBlock - 1) / kBlock; }

// Packing keys costs as much as a few queries over them.
bool has_few_queries(const Attention& op) {
  constexpr int64_t kFew = 8;
  for (int64_t i = 0; i < op.sequence_count; ++i)
    if (op.sequences[i].query_count * (op.heads / op.groups) > kFew) return false;
  return true;
}

// A piece of a sequence: a block of its keys for one group, or a tile of its queries for one head.
struct Piece {
  int64_t sequence, lane, first;
};

std::vector<Piece> cut(const Attention& op, int64_t lanes, int64_t Sequence::*count) {
  std::vector<Piece> pieces;
  for (int64_t sequence = 0; sequence < op.sequence_count; ++sequence)
    for (int64_t lane = 0; lane < lanes; ++lane)
      for (int64_t first = 0; first < op.sequences[sequence].*count; first += kBlock)
        pieces.push_back({sequence, lane, first});
  return pieces;
}

// Where the packed blocks of each sequence begin; those of a group lie together.
std::vector<int64_t> block_offsets(const Attention& op) {
  std::vector<int64_t> offsets(op.sequence_count + 1, 0);
  for (int64_t i = 0; i < op.sequence_count; ++i)
    offsets[i + 1] = offsets[i] + op.groups * blocks(op.sequences[i].key_count);
  return offsets;
}

int64_t most_keys(const Attention& op) {
  int64_t keys = 0;
  for (int64_t i = 0; i < op.sequence_count; ++i) keys = std::max(keys, op.sequences[i].key_count);
  return keys;
}

// Parts of the work on so many queries and keys of a head, in as many products of the two.
int64_t parts_of_scores(const Attention& op, int64_t queries, int64_t keys, int64_t products) {
  return parts_of(2 * products * queries * keys * op.size, kPartOperations);
}

void attention_by_tiles(const Attention& op) {
  const auto offsets = block_offsets(op);
  const int64_t size = kernels().packed_key_size(op.size);
  const Scratch<float> keys(offsets.back() * size), values(offsets.back() * size);
  const auto place = [&](int64_t sequence, int64_t group, int64_t first) {
    return (offsets[sequence] + group * blocks(op.sequences[sequence].key_count) + first / kBlock) * size;
  };
  const auto key_blocks = cut(op, op.groups, &Sequence::key_count);
  constexpr int64_t kAtOnce = 8;
  const auto pack = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Piece& p = key_blocks[i];
      const int64_t at = place(p.sequence, p.lane, p.first);
      kernels().pack_keys(op, op.sequences[p.sequence], p.lane, p.first, keys + at, values + at);
    }
  };
  parallel_ranges(key_blocks.size(), kAtOnce, pack, parts_of(kAtOnce * size, kPartNumbers));
  const auto tiles = cut(op, op.heads, &Sequence::query_count);
  parallel_items(tiles.size(), parts_of_scores(op, kBlock, most_keys(op), 2), [&](int64_t i) {
    const Piece& p = tiles[tiles.size() - 1 - i];  // under causality the last tiles of a head are the longest
    const int64_t at = place(p.sequence, p.lane / (op.heads / op.groups), 0);
    kernels().attention_tile(op, p.sequence, p.lane, p.first, keys + at, values + at);
  });
}

// The keys of a sequence are divided among threads where there are fewer groups of heads than threads; every share but
// the first sums its query gradient in memory of its own.
struct Shares {
  int64_t count, query_numbers;
  Scratch<float> others;

  Shares(int64_t count, int64_t query_numbers)
      : count(count), query_numbers(query_numbers), others((count - 1) * query_numbers) {
    std::memset(others.get(), 0, sizeof(float) * (count - 1) * query_numbers);
  }

  float* query_grad(const AttentionGrad& op, int64_t share) const {
    return share ? others + (share - 1) * query_numbers : op.query_grad;
  }

  void add_up(const AttentionGrad& op) const {
    for (int64_t share = 1; share < count; ++share)
      for (int64_t i = 0; i < query_numbers; ++i) op.query_grad[i] += others[(share - 1) * query_numbers + i];
  }
};

// Of `products` that a query and a key make in each head: scores and values forward, five backward.
void count_products(const Attention& op, int64_t products) {
  for (int64_t i = 0; i < op.sequence_count; ++i) {
    const Sequence& s = op.sequences[i];
    const bool is_half = op.causal && s.query_count == s.key_count;
    count_product(s.query_count, op.size, s.key_count, products * op.heads,
                  is_half ? Sharing::kAloneHalf : Sharing::kAlone);
  }
}

}  // namespace

void attention(const Attention& op) {
  count_products(op, 2);
  if (!has_few_queries(op)) return attention_by_tiles(op);
  // A key and a value are read in about a nanosecond a number.
  constexpr int64_t kWork = 1 << 15;
  const int64_t numbers = most_keys(op) * op.size, grain = 1 + kWork / std::max<int64_t>(numbers, 1);
  const auto some = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) kernels().attention_few(op, i / op.groups, i % op.groups);
  };
  parallel_ranges(op.sequence_count * op.groups, grain, some, parts_of(grain * numbers, kPartNumbers));
}

void attention_grad(const AttentionGrad& op, int64_t query_rows) {
  const Attention& f = op.forward;
  count_products(f, 5);
  parallel_ranges(query_rows * f.heads, 1 << 8,
                  [&](int64_t begin, int64_t end) { kernels().attention_delta(op, begin, end); });
  const int64_t units = f.sequence_count * f.groups;
  const Shares shares(units ? (num_threads() + units - 1) / units : 1, query_rows * f.heads * f.size);
  const int64_t queries = query_rows / std::max<int64_t>(f.sequence_count, 1) * f.heads / std::max<int64_t>(f.groups, 1);
  const int64_t weight = parts_of_scores(f, queries, most_keys(f) / shares.count, 5);
  parallel_items(units * shares.count, weight, [&](int64_t i) {
    const int64_t unit = i / shares.count, share = i % shares.count, sequence = unit / f.groups;
    const int64_t keys = f.sequences[sequence].key_count, all = blocks(keys);
    const int64_t begin = all * share / shares.count * kBlock, end = all * (share + 1) / shares.count * kBlock;
    kernels().attention_grad(op, sequence, unit % f.groups, begin, std::min(end, keys), shares.query_grad(op, share));
  });
  shares.add_up(op);
}

}  // namespace paddlemix
