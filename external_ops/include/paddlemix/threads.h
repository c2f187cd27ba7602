// How many threads the ops use, and the one way in which they divide their work.
#pragma once

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#ifdef PADDLEMIX_STD_THREADS
#include <thread>
#include <vector>
#endif

#include "paddlemix/denormals.h"
#include "paddlemix/waiting.h"

namespace paddlemix {

// Paddle tells OpenMP to use one thread unless the user set OMP_NUM_THREADS, so the number is kept here.
int num_threads();
void set_num_threads(int threads);

// From how many parts of a few microseconds on work is shared where a thread has to be woken for it: that takes some 50
// us, and longer where others want the cores. A norm of 1024 x 512 numbers, 32 parts, took 0.12 ms so, and 0.11 alone.
constexpr int64_t kWorthWaking = 40;
// The same of a team, whose threads wait for one another at each of its steps. Beside other programs a decoder block of 20
// parts took 1.6 ms on two threads, and 0.33 alone.
constexpr int64_t kTeamWorthWaking = 128;
// Operations of a part, and numbers that are read and written in the time.
constexpr int64_t kPartOperations = 1 << 18, kPartNumbers = 1 << 12;

// Parts of a piece of work, at least one.
inline int64_t parts_of(int64_t size, int64_t part) { return std::max<int64_t>(1, size / part); }

// How many threads to give work of so many parts of a few microseconds each: little is done by the calling thread alone,
// and what is little depends on whether threads wait awake. No result depends on it.
inline int threads_for(int64_t parts, int64_t worth_waking = kWorthWaking) {
  if (parts <= 1 || num_threads() <= 1) return 1;
  look_around();
  if (parts < worth_waking && !threads_wait_awake()) return 1;
  return static_cast<int>(std::min<int64_t>(num_threads(), parts));
}

// Makes OpenMP's default so many threads while it lives, and lets denormals be 0 in them: oneDNN computes on these.
class OpenMPThreads {
 public:
  explicit OpenMPThreads(int threads) : before_(omp_get_max_threads()) {
    omp_set_num_threads(threads);
    if (threads > 1) look_around();
  }
  ~OpenMPThreads() { omp_set_num_threads(before_); }
  OpenMPThreads(const OpenMPThreads&) = delete;
  OpenMPThreads& operator=(const OpenMPThreads&) = delete;

 private:
  const FlushedDenormals flushed_;
  int before_;
};

// Calls `work(part)` for each part, all at the same time.
template <typename Work>
void run_parts(int parts, const Work& work) {
  const auto settled = [&work](int part) {
    const FlushedDenormals flushed;
    work(part);
  };
#ifdef PADDLEMIX_STD_THREADS  // for ThreadSanitizer, which does not see how OpenMP's threads wait for one another
  std::vector<std::thread> threads;
  for (int part = 0; part < parts; ++part) threads.emplace_back([&settled, part] { settled(part); });
  for (std::thread& thread : threads) thread.join();
#else
#pragma omp parallel for schedule(static, 1) num_threads(parts)
  for (int part = 0; part < parts; ++part) settled(part);
#endif
}

// Where the threads of a team wait for one another: awake for as long as a step takes, then asleep. OpenMP's own barrier
// puts them to sleep at once where idle threads do not wait awake: seven of a decoder block took 0.5 ms.
class Gate {
 public:
  void meet(int threads) {
    const int round = round_.load(std::memory_order_acquire);
    if (waiting_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
      waiting_.store(0, std::memory_order_relaxed);
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        round_.store(round + 1, std::memory_order_release);
      }
      all_here_.notify_all();
      return;
    }
    for (int turn = 0; turn < kTurns; ++turn) {
      if (round_.load(std::memory_order_acquire) != round) return;
#if defined(__x86_64__)
      _mm_pause();
#endif
    }
    std::unique_lock<std::mutex> lock(mutex_);
    all_here_.wait(lock, [&] { return round_.load(std::memory_order_acquire) != round; });
  }

 private:
  static constexpr int kTurns = 4000;  // some 100 us

  std::atomic<int> waiting_{0}, round_{0};
  std::mutex mutex_;
  std::condition_variable all_here_;
};

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
  void meet() const { gate_->meet(threads_); }

 private:
  int index_, threads_;
  Gate* gate_;
};

// Calls `work(member)` on at most so many threads at the same time: for steps one after the other, between which they
// wait for one another and stay awake.
template <typename Work>
void run_team(int threads, const Work& work) {
  Gate gate;
#ifdef PADDLEMIX_STD_THREADS
  run_parts(threads, [&](int index) { work(Member(index, threads, &gate)); });
#else
#pragma omp parallel num_threads(threads)
  {
    const FlushedDenormals flushed;
    work(Member(omp_get_thread_num(), omp_get_num_threads(), &gate));
  }
#endif
}

// Calls `work(begin, end)` on ranges of [0, count), each of at least `grain` items, which are `weight` parts.
template <typename Work>
void parallel_ranges(int64_t count, int64_t grain, const Work& work, int64_t weight = 1) {
  const int64_t grains = (count + grain - 1) / std::max<int64_t>(grain, 1);
  const int64_t ranges = grains <= 1 ? 1 : std::min<int64_t>(threads_for(weight * grains), grains);
  if (ranges <= 1) {
    const FlushedDenormals flushed;
    if (count > 0) work(int64_t{0}, count);
    return;
  }
  run_parts(static_cast<int>(ranges),
            [&](int64_t range) { work(count * range / ranges, count * (range + 1) / ranges); });
}

// Calls `work(item)` for each item, which is `weight` parts; a thread that is done takes the next one.
template <typename Work>
void parallel_items(int64_t count, int64_t weight, const Work& work) {
  const int64_t threads = count <= 1 ? 1 : std::min<int64_t>(threads_for(weight * count), count);
  if (threads <= 1) {
    const FlushedDenormals flushed;
    for (int64_t item = 0; item < count; ++item) work(item);
    return;
  }
  std::atomic<int64_t> next{0};
  run_parts(static_cast<int>(threads), [&](int64_t) {
    for (int64_t item = next++; item < count; item = next++) work(item);
  });
}

}  // namespace paddlemix
