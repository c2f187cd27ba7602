// How idle threads wait: awake, so that the next piece of work starts within microseconds, or asleep, so that other
// programs have the core. Waking one takes some 50 us, and a team of which one thread has lost its core waits for it for
// milliseconds. So they are awake unless the cores are wanted for most of the time: the demo beside a data worker, which
// works for a third of it, is faster awake (6.0 steps a second, 5.2 asleep), beside a program that computes asleep (3.6,
// 4.2).
#pragma once

#include <algorithm>
#include <cmath>

namespace paddlemix {

// What was seen since the last look.
struct Sighting {
  double seconds;       // that passed
  double cpu_seconds;   // that this process's threads ran
  long preemptions;     // of these threads: they wanted to go on, and another got the core
  int others;           // threads of all programs but this team that want to run now
  double stolen_share;  // of the cores' time, by other virtual machines
};

// Decides from one look to the next. It only knows what it is told, so that tests can tell it anything.
class WaitPolicy {
 public:
  WaitPolicy(int threads, int cores) : threads_(threads), cores_(cores) {}

  bool is_awake() const { return awake_; }

  // Returns whether threads wait awake from now on.
  bool look(const Sighting& seen) {
    const double forgotten = std::exp(-seen.seconds / kMemory);
    const bool crowded = seen.others + threads_ > cores_;
    crowded_share_ = crowded_share_ * forgotten + (crowded ? 1.0 - forgotten : 0.0);
    preemptions_ = preemptions_ * forgotten + seen.preemptions;
    cpu_seconds_ = cpu_seconds_ * forgotten + seen.cpu_seconds;

    held_ = std::max(0.0, held_ - seen.seconds);
    if (awake_) awake_for_ += seen.seconds;
    const bool preempted = preemptions_ >= kFew && preemptions_ > kPreemptionsPerSecond * cpu_seconds_;
    if (preempted || seen.stolen_share > kStolenShare) {
      // Each time that waking was a mistake the next try comes later.
      if (awake_) hold_ = awake_for_ < kLongAwake ? std::min(2 * hold_, kLongestHold) : kShortestHold;
      held_ = hold_;
      preemptions_ = cpu_seconds_ = 0.0;  // the next verdict is on what comes from now on
    }
    awake_ = held_ <= 0.0 && crowded_share_ < kCrowdedShare;
    if (!awake_) awake_for_ = 0.0;
    return awake_;
  }

 private:
  // Seconds after which what was seen counts for a third.
  static constexpr double kMemory = 0.2;
  static constexpr double kLongAwake = 1.0, kShortestHold = 0.1, kLongestHold = 3.2;
  static constexpr double kCrowdedShare = 0.5, kStolenShare = 0.02;
  // Alone, a thread that computes is preempted a few times a second; beside one that wants its core, every 3 to 6 ms.
  static constexpr double kFew = 2.0, kPreemptionsPerSecond = 100.0;

  int threads_, cores_;
  bool awake_ = false;
  double crowded_share_ = 1.0, preemptions_ = 0.0, cpu_seconds_ = 0.0;  // crowded until the contrary has been seen
  double held_ = 0.0, hold_ = kShortestHold, awake_for_ = 0.0;
};

// Looks at the machine, at most every 20 ms, and tells OpenMP; to be called by a thread that is about to wake its team.
void look_around();

// Whether idle threads of the team are awake.
bool threads_wait_awake();

// Lets the ops decide; otherwise threads wait as OpenMP was told when it was started.
void adapt_waiting(bool wanted);

}  // namespace paddlemix
