// Attention of one new token a row to a cache, which is read where it lies. All query heads that share a key head are
// computed by one block, so that the cache is read once. A long cache is cut into parts for as many blocks, whose
// results are then joined.
// Sources: Dao et al., "Flash-Decoding for long-context inference", 2023; Milakov and Gimelshein, "Online normalizer
// calculation for softmax", 2018, arXiv:1805.02867.
#pragma once

#include <cmath>

#include "launch.cuh"
#include "row.cuh"

namespace paddlemix {

constexpr int kCacheThreads = 128;
// So many threads share a key; a block's teams take one key after the other in turn, `kKeysAtOnce` at once.
constexpr int kTeamLanes = 16;
constexpr int kTeams = kCacheThreads / kTeamLanes, kWarpTeams = kWarp / kTeamLanes;
constexpr int kCacheWarps = kCacheThreads / kWarp;
constexpr int kKeysAtOnce = 2;
// Shorter parts cost more to join than they gain.
constexpr int64_t kLeastPart = 128;
constexpr int kLargestHead = 256;
constexpr double kLog2OfE = 1.4426950408889634;

template <typename T>
struct CachedAttention {
  const T* query;   // [batch, heads, size]
  const T* key;     // [batch, groups, size], of the new token
  const T* value;
  T* keys;          // [at least batch, capacity, groups, size]; place `length` is written
  T* values;
  const int32_t* starts;  // [batch], the first place that a row sees; or null, for 0
  const int32_t* rows;    // [batch, capacity], which row of the cache holds each place; or null, for the row itself
  T* y;             // [batch, heads, size]
  float* scratch;
  int64_t batch, heads, groups, size, capacity, length;
  float scale;  // of scores, as exponents of 2
};

// How the places 0 to `length` are cut.
struct Parts {
  int64_t count, places;
};

// What a part leaves, for the sum over all keys: numbers weighted by exp2(score - top), and the sum of these weights.
struct PartResults {
  float *mixed, *tops, *totals;  // [batch, heads, parts, size], [batch, heads, parts] twice
};

__host__ __device__ inline PartResults split_scratch(float* scratch, int64_t heads, int64_t parts, int64_t size) {
  return {scratch, scratch + heads * parts * size, scratch + heads * parts * (size + 1)};
}

// An exponent may be minus infinity, where nothing has been seen yet.
__device__ inline float finite_or_zero(float top) { return top == -INFINITY ? 0.0f : top; }

// This thread's numbers of a head: `kPacks` packs, `kTeamLanes` packs apart.
template <typename T, int kWidth, int kPacks>
struct Share {
  float at[kPacks * kWidth];

  __device__ void load(const T* head, int64_t size, int lane, float factor) {
#pragma unroll
    for (int pack = 0; pack < kPacks; ++pack) {
      const int64_t first = static_cast<int64_t>(pack * kTeamLanes + lane) * kWidth;
      Pack<T, kWidth> numbers;
      if (first < size) numbers = read<kWidth>(head + first);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) at[pack * kWidth + i] = first < size ? wide(numbers.at[i]) * factor : 0.0f;
    }
  }

  // Calls `work(place in the head, number)`.
  template <typename Work>
  __device__ void each(int64_t size, int lane, const Work& work) const {
#pragma unroll
    for (int pack = 0; pack < kPacks; ++pack) {
      const int64_t first = static_cast<int64_t>(pack * kTeamLanes + lane) * kWidth;
      if (first < size)
        for (int i = 0; i < kWidth; ++i) work(first + i, at[pack * kWidth + i]);
    }
  }
};

// What a team, and then a block, has seen so far of the keys, for one query head.
template <typename T, int kWidth, int kPacks>
struct Running {
  Share<T, kWidth, kPacks> mixed;
  float top, total;

  __device__ void clear() {
    for (float& number : mixed.at) number = 0.0f;
    top = -INFINITY, total = 0.0f;
  }

  __device__ void add(float score, const Share<T, kWidth, kPacks>& value) {
    const float highest = fmaxf(top, score), base = finite_or_zero(highest);
    const float kept = exp2f(top - base), weight = exp2f(score - base);
#pragma unroll
    for (int i = 0; i < kPacks * kWidth; ++i) mixed.at[i] = mixed.at[i] * kept + weight * value.at[i];
    total = total * kept + weight, top = highest;
  }

  // Joins what the other teams of the warp have seen; all threads get the same.
  __device__ void join_warp() {
#pragma unroll
    for (int step = kTeamLanes; step < kWarp; step *= 2) {
      const float other_top = __shfl_xor_sync(kWholeWarp, top, step);
      const float other_total = __shfl_xor_sync(kWholeWarp, total, step);
      const float highest = fmaxf(top, other_top), base = finite_or_zero(highest);
      const float kept = exp2f(top - base), joined = exp2f(other_top - base);
#pragma unroll
      for (int i = 0; i < kPacks * kWidth; ++i) {
        const float other = __shfl_xor_sync(kWholeWarp, mixed.at[i], step);
        mixed.at[i] = mixed.at[i] * kept + other * joined;
      }
      total = total * kept + other_total * joined, top = highest;
    }
  }
};

// blockIdx.x chooses the part, blockIdx.y the key head and `kRows` of the query heads that share it, blockIdx.z the row.
template <typename T, int kWidth, int kPacks, int kRows>
__global__ void __launch_bounds__(kCacheThreads) cached_attention_kernel(CachedAttention<T> a, Parts parts) {
  constexpr int kNumbers = kPacks * kWidth * kTeamLanes;
  __shared__ float mixed[kCacheWarps][kRows][kNumbers], tops[kCacheWarps][kRows], totals[kCacheWarps][kRows];
  const int lane = threadIdx.x % kTeamLanes, team = threadIdx.x / kTeamLanes, warp = threadIdx.x / kWarp;
  const int64_t row = blockIdx.z, group = blockIdx.y % a.groups, turn = blockIdx.y / a.groups;
  const int64_t heads = a.heads / a.groups, first_head = turn * kRows;
  const int64_t new_place = (row * a.groups + group) * a.size;

  Share<T, kWidth, kPacks> queries[kRows];
  Running<T, kWidth, kPacks> seen[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    // Of heads that are too many, the last is computed again, and left.
    const int64_t head = group * heads + lesser(first_head + r, heads - 1);
    queries[r].load(a.query + (row * a.heads + head) * a.size, a.size, lane, a.scale);
    seen[r].clear();
  }

  const int64_t start = a.starts ? a.starts[row] : 0;
  const int64_t begin = larger(static_cast<int64_t>(blockIdx.x) * parts.places, start);
  const int64_t end = lesser((static_cast<int64_t>(blockIdx.x) + 1) * parts.places, a.length + 1);
  // All threads of a warp go round as often: they meet in shuffles.
  for (int64_t at = begin; at < end; at += kTeams * kKeysAtOnce) {
    Share<T, kWidth, kPacks> keys[kKeysAtOnce], values[kKeysAtOnce];
#pragma unroll
    for (int n = 0; n < kKeysAtOnce; ++n) {
      const int64_t place = lesser(at + n * kTeams + team, end - 1);
      const int64_t held_by = a.rows && place < a.length ? a.rows[row * a.capacity + place] : row;
      const int64_t held = ((held_by * a.capacity + place) * a.groups + group) * a.size;
      const bool is_new = place == a.length;
      keys[n].load(is_new ? a.key + new_place : a.keys + held, a.size, lane, 1.0f);
      values[n].load(is_new ? a.value + new_place : a.values + held, a.size, lane, 1.0f);
    }
#pragma unroll
    for (int n = 0; n < kKeysAtOnce; ++n) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float score = 0.0f;
#pragma unroll
        for (int i = 0; i < kPacks * kWidth; ++i) score += queries[r].at[i] * keys[n].at[i];
#pragma unroll
        for (int step = kTeamLanes / 2; step > 0; step /= 2) score += __shfl_xor_sync(kWholeWarp, score, step);
        seen[r].add(at + n * kTeams + team < end ? score : -INFINITY, values[n]);
      }
    }
  }

  // No block reads the new place from the cache, so that none has to wait for this.
  if (blockIdx.x == parts.count - 1 && turn == 0) {
    const int64_t held = ((row * a.capacity + a.length) * a.groups + group) * a.size;
    for (int64_t i = threadIdx.x; i < a.size; i += kCacheThreads) {
      a.keys[held + i] = a.key[new_place + i];
      a.values[held + i] = a.value[new_place + i];
    }
  }

#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    seen[r].join_warp();
    if (threadIdx.x % kWarp < kTeamLanes)
      seen[r].mixed.each(a.size, lane, [&](int64_t i, float number) { mixed[warp][r][i] = number; });
    if (threadIdx.x % kWarp == 0) tops[warp][r] = seen[r].top, totals[warp][r] = seen[r].total;
  }
  __syncthreads();

  const PartResults left = split_scratch(a.scratch, a.batch * a.heads, parts.count, a.size);
  for (int64_t k = threadIdx.x; k < kRows * a.size; k += kCacheThreads) {
    const int64_t r = k / a.size, i = k % a.size;
    if (first_head + r >= heads) break;
    float top = -INFINITY, sum = 0.0f, total = 0.0f;
    for (int w = 0; w < kCacheWarps; ++w) top = fmaxf(top, tops[w][r]);
    for (int w = 0; w < kCacheWarps; ++w) {
      const float weight = exp2f(tops[w][r] - finite_or_zero(top));
      sum += weight * mixed[w][r][i], total += weight * totals[w][r];
    }
    const int64_t head = row * a.heads + group * heads + first_head + r;
    if (parts.count == 1) {
      a.y[head * a.size + i] = narrow<T>(sum / total);
      continue;
    }
    const int64_t part = head * parts.count + blockIdx.x;
    left.mixed[part * a.size + i] = sum;
    if (i == 0) left.tops[part] = top, left.totals[part] = total;
  }
}

// A block for each query head of each row, a thread for each of its numbers.
template <typename T>
__global__ void __launch_bounds__(kLargestHead) join_parts_kernel(CachedAttention<T> a, Parts parts) {
  const int64_t head = blockIdx.x;
  const PartResults left = split_scratch(a.scratch, a.batch * a.heads, parts.count, a.size);
  for (int64_t i = threadIdx.x; i < a.size; i += blockDim.x) {
    float top = -INFINITY, sum = 0.0f, total = 0.0f;
    for (int64_t part = head * parts.count; part < (head + 1) * parts.count; ++part) top = fmaxf(top, left.tops[part]);
    for (int64_t part = head * parts.count; part < (head + 1) * parts.count; ++part) {
      const float weight = exp2f(left.tops[part] - top);
      sum += weight * left.mixed[part * a.size + i], total += weight * left.totals[part];
    }
    a.y[head * a.size + i] = narrow<T>(sum / total);
  }
}

// Query heads that a block computes; their numbers are in registers.
inline int64_t rows_of_block(int64_t heads, int64_t size) {
  const int64_t most = size > kTeamLanes * 8 ? 4 : 8;
  int64_t rows = 1;
  while (rows < std::min(heads, most)) rows *= 2;
  return rows;
}

inline Parts cut(int64_t batch, int64_t heads, int64_t groups, int64_t size, int64_t length) {
  const int64_t shared = heads / groups, rows = rows_of_block(shared, size);
  const int64_t blocks = batch * groups * ((shared + rows - 1) / rows), places = length + 1;
  // Enough blocks for every multiprocessor to have some in flight.
  const int64_t wanted = std::max<int64_t>(4 * multiprocessors() / std::max<int64_t>(blocks, 1), 1);
  const int64_t count = std::min(wanted, (places + kLeastPart - 1) / kLeastPart);
  const int64_t of_part = (places + count - 1) / count;
  return {(places + of_part - 1) / of_part, of_part};
}

inline int64_t cached_attention_scratch(int64_t batch, int64_t heads, int64_t groups, int64_t size, int64_t length) {
  const Parts parts = cut(batch, heads, groups, size, length);
  return parts.count == 1 ? 0 : static_cast<int64_t>(sizeof(float)) * batch * heads * parts.count * (size + 2);
}

template <typename T, int kWidth, int kPacks, int kRows>
void attend(const CachedAttention<T>& a, const Parts& parts, cudaStream_t stream) {
  const int64_t shared = a.heads / a.groups, turns = (shared + kRows - 1) / kRows;
  launch(cached_attention_kernel<T, kWidth, kPacks, kRows>,
         dim3(static_cast<unsigned>(parts.count), static_cast<unsigned>(a.groups * turns), static_cast<unsigned>(a.batch)),
         dim3(kCacheThreads), stream, a, parts);
}

template <typename T, int kWidth, int kPacks>
void attend_rows(const CachedAttention<T>& a, const Parts& parts, cudaStream_t stream) {
  // Heads whose numbers are loaded one by one are rare: they need no kernels of their own.
  switch (kWidth == 1 ? 1 : rows_of_block(a.heads / a.groups, a.size)) {
    case 1:
      return attend<T, kWidth, kPacks, 1>(a, parts, stream);
    case 2:
      if constexpr (kWidth > 1) return attend<T, kWidth, kPacks, 2>(a, parts, stream);
    case 4:
      if constexpr (kWidth > 1) return attend<T, kWidth, kPacks, 4>(a, parts, stream);
    default:
      // Of larger heads no block computes so many.
      if constexpr (kWidth > 1 && kPacks * kWidth <= 8) attend<T, kWidth, kPacks, 8>(a, parts, stream);
  }
}

template <typename T>
void cached_attention(const CachedAttention<T>& a, cudaStream_t stream) {
  if (!a.batch || !a.heads) return;
  if (!a.groups || a.heads % a.groups || a.size < 1 || a.size > kLargestHead)
    throw std::invalid_argument("expected query heads that are a multiple of the key heads, of 1 to 256 numbers");
  if (a.length < 0 || a.length >= a.capacity) throw std::invalid_argument("the cache is full");
  const Parts parts = cut(a.batch, a.heads, a.groups, a.size, a.length);
  const bool fits = a.size % kVector<T> == 0 && are_aligned(a.query, a.key, a.value, a.keys, a.values);
  with_width<T>(fits, [&](auto width) {
    // 8 or 16 numbers of a head in each of a team's threads.
    if (a.size <= kTeamLanes * 8)
      attend_rows<T, width(), 8 / width()>(a, parts, stream);
    else
      attend_rows<T, width(), 16 / width()>(a, parts, stream);
  });
  if (parts.count > 1)
    launch(join_parts_kernel<T>, dim3(static_cast<unsigned>(a.batch * a.heads)),
           dim3(static_cast<unsigned>((a.size + kWarp - 1) / kWarp * kWarp)), stream, a, parts);
}

}  // namespace paddlemix
