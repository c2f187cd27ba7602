// AdamW and the norm of gradients over many tensors at once, on all threads.
#include <vector>

#include "paddlemix/ops.h"
#include "paddlemix/threads.h"

namespace paddlemix {
namespace {

// What one thread takes at a time: of AdamW's four arrays, 512 KiB.
constexpr int64_t kPiece = 1 << 15;

struct Piece {
  int64_t tensor, begin, end;
};

// Tensors in pieces that begin and end at the same places for any number of threads.
std::vector<Piece> cut(const int64_t* sizes, int64_t count) {
  std::vector<Piece> pieces;
  for (int64_t tensor = 0; tensor < count; ++tensor)
    for (int64_t begin = 0; begin < sizes[tensor]; begin += kPiece)
      pieces.push_back({tensor, begin, std::min(begin + kPiece, sizes[tensor])});
  return pieces;
}

// Calls `work(index)` for each piece of so many arrays; small ones that follow one another stay on one thread.
template <typename Work>
void by_pieces(const std::vector<Piece>& pieces, int64_t arrays, const Work& work) {
  std::vector<std::size_t> ends;
  int64_t numbers = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    numbers += pieces[i].end - pieces[i].begin;
    if (numbers < kPiece && i + 1 < pieces.size()) continue;
    ends.push_back(i + 1);
    numbers = 0;
  }
  parallel_items(ends.size(), parts_of(arrays * kPiece, kPartNumbers), [&](int64_t item) {
    for (std::size_t i = item ? ends[item - 1] : 0; i < ends[item]; ++i) work(i);
  });
}

}  // namespace

void adamw(const AdamW* steps, const int64_t* sizes, int64_t count) {
  const std::vector<Piece> pieces = cut(sizes, count);
  by_pieces(pieces, 4, [&](std::size_t i) { kernels().adamw(steps[pieces[i].tensor], pieces[i].begin, pieces[i].end); });
}

void squared_norms(const float* const* tensors, const int64_t* sizes, int64_t count, double* sums) {
  const std::vector<Piece> pieces = cut(sizes, count);
  std::vector<double> parts(pieces.size());
  by_pieces(pieces, 1, [&](std::size_t i) {
    const Piece& piece = pieces[i];
    parts[i] = kernels().sum_squares(tensors[piece.tensor] + piece.begin, piece.end - piece.begin);
  });
  std::fill(sums, sums + count, 0.0);
  for (std::size_t i = 0; i < pieces.size(); ++i) sums[pieces[i].tensor] += parts[i];
}

}  // namespace paddlemix
