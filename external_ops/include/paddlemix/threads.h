// How many threads the ops use, and the one way in which they divide their work.
#pragma once

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#ifdef PADDLEMIX_STD_THREADS
#include <thread>
#include <vector>
#endif

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

// Calls `work(part)` for each part, all at the same time.
template <typename Work>
void run_parts(int parts, const Work& work) {
#ifdef PADDLEMIX_STD_THREADS  // for ThreadSanitizer, which does not see how OpenMP's threads wait for one another
  std::vector<std::thread> threads;
  for (int part = 0; part < parts; ++part) threads.emplace_back([&work, part] { work(part); });
  for (std::thread& thread : threads) thread.join();
#else
#pragma omp parallel for schedule(static, 1) num_threads(parts)
  for (int part = 0; part < parts; ++part) work(part);
#endif
}

// Calls `work(begin, end)` on parts of [0, count), each of at least `grain` items; little work stays on this thread.
template <typename Work>
void parallel_ranges(int64_t count, int64_t grain, const Work& work) {
  const int64_t parts = std::min<int64_t>(num_threads(), (count + grain - 1) / std::max<int64_t>(grain, 1));
  if (parts <= 1) {
    if (count > 0) work(int64_t{0}, count);
    return;
  }
  run_parts(static_cast<int>(parts),
            [&](int64_t part) { work(count * part / parts, count * (part + 1) / parts); });
}

// Calls `work(item)` for each item; a thread that is done takes the next one.
template <typename Work>
void parallel_items(int64_t count, const Work& work) {
  const int64_t threads = std::min<int64_t>(num_threads(), count);
  if (threads <= 1) {
    for (int64_t item = 0; item < count; ++item) work(item);
    return;
  }
  std::atomic<int64_t> next{0};
  run_parts(static_cast<int>(threads), [&](int64_t) {
    for (int64_t item = next++; item < count; item = next++) work(item);
  });
}

}  // namespace paddlemix
