// How many threads the ops use, and the one way in which they divide their work.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace paddlemix {

// Paddle tells OpenMP to use one thread unless the user set OMP_NUM_THREADS, so the number is kept here.
int num_threads();
void set_num_threads(int threads);

// Makes OpenMP's default the ops' number while it lives: oneDNN reads it.
class OpenMPThreads {
 public:
  OpenMPThreads() : before_(omp_get_max_threads()) { omp_set_num_threads(num_threads()); }
  ~OpenMPThreads() { omp_set_num_threads(before_); }
  OpenMPThreads(const OpenMPThreads&) = delete;
  OpenMPThreads& operator=(const OpenMPThreads&) = delete;

 private:
  int before_;
};

// Calls `work(begin, end)` on parts of [0, count), each of at least `grain` items; little work stays on this thread.
template <typename Work>
void parallel_ranges(int64_t count, int64_t grain, const Work& work) {
  const int64_t parts = std::min<int64_t>(num_threads(), (count + grain - 1) / std::max<int64_t>(grain, 1));
  if (parts <= 1) {
    if (count > 0) work(int64_t{0}, count);
    return;
  }
#pragma omp parallel for schedule(static, 1) num_threads(static_cast<int>(parts))
  for (int64_t part = 0; part < parts; ++part) work(count * part / parts, count * (part + 1) / parts);
}

// Calls `work(item)` for each item; a thread that is done takes the next one.
template <typename Work>
void parallel_items(int64_t count, const Work& work) {
  const int64_t threads = std::min<int64_t>(num_threads(), count);
  if (threads <= 1) {
    for (int64_t item = 0; item < count; ++item) work(item);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(static_cast<int>(threads))
  for (int64_t item = 0; item < count; ++item) work(item);
}

}  // namespace paddlemix
