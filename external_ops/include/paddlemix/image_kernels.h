// Kernels on images of 8 bits a channel, RGB, written once and compiled for several instruction sets. They run on the
// thread that calls them: data workers and prefetching threads are parallel already.
#pragma once

#include <cstdint>

namespace paddlemix {

constexpr int64_t kChannels = 3;

// How one axis is resized: new place i is the sum of `count[i]` old places from `first[i]` on, each times a weight. A
// place's weights, signs aside, add up to 2^23 at most, so that sums fit 32 bits.
struct Axis {
  int64_t size;            // new places
  int64_t taps;            // room for the weights of one place
  int64_t bits;            // of the weights are fraction; sums are rounded to nearest, halves up, and clipped to a byte
  const int32_t* first;    // [size]
  const int32_t* count;    // [size]
  const int32_t* weights;  // [size, taps]
};

struct Resize {
  const uint8_t* from;  // [height, width, 3], rows `stride` bytes apart
  int64_t height, width, stride;
  const Axis* across;  // or null: the width stays
  const Axis* down;    // or null: the height stays
  uint8_t* to;         // dense; may not overlap `from`
};

struct Patchify {
  const uint8_t* const* frames;  // [frame_count] images, [height, width, 3] each, dense
  int64_t frame_count;
  int64_t height, width;  // multiples of a window's side
  int64_t patch_size;     // pixels of a patch's side
  int64_t merge_size;     // patches of a window's side
  const float* levels;    // [3, 256]: what each grey level of each channel becomes
  float* patches;         // [patches, 3, frame_count, patch_size, patch_size], window after window
};

struct ImageKernels {
  const char* name;
  void (*resize)(const Resize&);
  void (*patchify)(const Patchify&);
};

// The fastest that this processor can run.
const ImageKernels& image_kernels();

}  // namespace paddlemix
