// Runs the image kernels at odd sizes and on several threads at once, for AddressSanitizer and ThreadSanitizer:
// `sh tests/run.sh address images`. Results are compared with plain loops.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "paddlemix/image_kernels.h"

using namespace paddlemix;
using Bytes = std::vector<uint8_t>;

static void expect(bool holds, const char* what, int64_t height, int64_t width) {
  if (holds) return;
  std::fprintf(stderr, "%s of %lld x %lld pixels is wrong\n", what, static_cast<long long>(height),
               static_cast<long long>(width));
  std::exit(1);
}

static Bytes noise(std::mt19937& generator, int64_t count) {
  Bytes bytes(count);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(generator());
  return bytes;
}

// An axis with random places and weights, some negative: sums leave the range of a byte now and then, but not 32 bits.
struct RandomAxis {
  std::vector<int32_t> first, count, weights;
  Axis axis;

  RandomAxis(std::mt19937& generator, int64_t old, int64_t size) : first(size), count(size) {
    const int64_t taps = std::min<int64_t>(old, 5);
    weights.resize(size * taps);
    for (int64_t place = 0; place < size; ++place) {
      count[place] = static_cast<int32_t>(1 + generator() % taps);
      first[place] = static_cast<int32_t>(generator() % (old - count[place] + 1));
    }
    for (int32_t& weight : weights) weight = static_cast<int32_t>(generator() % (1 << 21)) - (1 << 19);
    axis = {size, taps, 22, first.data(), count.data(), weights.data()};
  }
};

// One axis by plain loops: `inner` bytes lie side by side at each of its places, `outer` times over.
static Bytes filtered(const Bytes& from, int64_t outer, int64_t old, int64_t inner, const Axis& axis) {
  Bytes to(outer * axis.size * inner);
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t place = 0; place < axis.size; ++place)
      for (int64_t i = 0; i < inner; ++i) {
        int64_t sum = int64_t{1} << (axis.bits - 1);
        for (int64_t tap = 0; tap < axis.count[place]; ++tap)
          sum += int64_t{axis.weights[place * axis.taps + tap]} * from[(o * old + axis.first[place] + tap) * inner + i];
        to[(o * axis.size + place) * inner + i] = static_cast<uint8_t>(std::clamp<int64_t>(sum >> axis.bits, 0, 255));
      }
  return to;
}

static void resizes(int64_t height, int64_t width, int64_t new_height, int64_t new_width) {
  std::mt19937 generator(static_cast<unsigned>(height * 7 + width));
  const Bytes from = noise(generator, height * width * kChannels);
  const RandomAxis across(generator, width, new_width), down(generator, height, new_height);
  for (const bool wider : {false, true})
    for (const bool higher : {false, true}) {
      Bytes wanted = from;
      const int64_t w = wider ? new_width : width, h = higher ? new_height : height;
      if (wider) wanted = filtered(wanted, height, width, kChannels, across.axis);
      if (higher) wanted = filtered(wanted, 1, height, w * kChannels, down.axis);
      Bytes to(h * w * kChannels);
      image_kernels().resize({from.data(), height, width, width * kChannels, wider ? &across.axis : nullptr,
                                higher ? &down.axis : nullptr, to.data()});
      expect(to == wanted, "resizing", height, width);
    }
}

static void patches(int64_t height, int64_t width, int64_t size, int64_t merge) {
  std::mt19937 generator(static_cast<unsigned>(height + width));
  const Bytes first = noise(generator, height * width * kChannels), second = noise(generator, first.size());
  std::vector<float> levels(kChannels * 256), found(3 * first.size());
  for (std::size_t i = 0; i < levels.size(); ++i) levels[i] = static_cast<float>(i);
  const uint8_t* frames[] = {first.data(), first.data(), second.data()};
  image_kernels().patchify({frames, 3, height, width, size, merge, levels.data(), found.data()});
  const int64_t window = size * merge;
  const float* next = found.data();
  bool same = true;
  for (int64_t patch = 0; patch < height * width / (size * size); ++patch) {
    const int64_t within = patch % (merge * merge), corner = patch / (merge * merge);
    const int64_t top = corner / (width / window) * window + within / merge * size;
    const int64_t left = corner % (width / window) * window + within % merge * size;
    for (int64_t c = 0; c < kChannels; ++c)
      for (const uint8_t* frame : frames)
        for (int64_t y = top; y < top + size; ++y)
          for (int64_t x = left; x < left + size; ++x)
            same = same && *next++ == levels[c * 256 + frame[(y * width + x) * kChannels + c]];
  }
  expect(same, "cutting", height, width);
}

static void all() {
  for (const int64_t side : {1, 2, 5, 6, 16, 33})
    for (const int64_t other : {1, 4, 17, 70}) resizes(side, other, 19, 37), resizes(other, side, 3, 66);
  patches(28, 28, 14, 2), patches(56, 84, 14, 2), patches(3, 5, 1, 1), patches(12, 6, 3, 2), patches(34, 17, 17, 1);
  patches(0, 28, 14, 2);
}

int main() {
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) threads.emplace_back(all);
  for (std::thread& thread : threads) thread.join();
  std::printf("%s image kernels: all ran\n", image_kernels().name);
}
