// How many threads the ops use, and the one way in which they divide their work.
#pragma once

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#ifdef PADDLEMIX_STD_THREADS
#include <condition_variable>
#include <mutex>
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

// Where the threads of a team wait for one another.
#ifdef PADDLEMIX_STD_THREADS
class Gate {
 public:
  explicit Gate(int threads) : threads_(threads) {}
  void meet() {
    std::unique_lock<std::mutex> lock(mutex_);
    const int round = round_;
    if (++waiting_ == threads_) {
      waiting_ = 0;
      ++round_;
      all_here_.notify_all();
    } else {
      all_here_.wait(lock, [&] { return round_ != round; });
    }
  }

 private:
  const int threads_;
  int waiting_ = 0, round_ = 0;
  std::mutex mutex_;
  std::condition_variable all_here_;
};
#else
class Gate {
 public:
  explicit Gate(int) {}
  void meet() {
#pragma omp barrier
  }
};
#endif

// One thread of those that `run_team` sets to work.
class Member {
 public:
  Member(int index, int threads, Gate* gate) : index_(index), threads_(threads), gate_(gate) {}

  // Calls `work(begin, end)` with this thread's part of [0, count), a multiple of `step` long but for the last.
  template <typename Work>
  void share(int64_t count, int64_t step, const Work& work) const {
    const int64_t steps = (count + step - 1) / step;
    const int64_t begin = steps * index_ / threads_ * step;
    const int64_t end = std::min(count, steps * (index_ + 1) / threads_ * step);
    if (begin < end) work(begin, end);
  }

  // Returns when all threads have arrived.
  void meet() const { gate_->meet(); }

 private:
  int index_, threads_;
  Gate* gate_;
};

// Calls `work(member)` on at most so many threads at the same time: for steps one after the other, between which they
// wait for one another and stay awake.
template <typename Work>
void run_team(int threads, const Work& work) {
  Gate gate(threads);
#ifdef PADDLEMIX_STD_THREADS
  run_parts(threads, [&](int index) { work(Member(index, threads, &gate)); });
#else
#pragma omp parallel num_threads(threads)
  work(Member(omp_get_thread_num(), omp_get_num_threads(), &gate));
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
