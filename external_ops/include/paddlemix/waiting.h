// How idle threads wait: awake, so that the next piece of work starts within microseconds, or asleep, so that other
// programs have the core. Waking one takes some 50 us, and a team of which one thread has lost its core waits for it for
// milliseconds. So they are awake while the cores are free.
#pragma once

#include <algorithm>

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
    held_ = std::max(0.0, held_ - seen.seconds);
    if (awake_) awake_for_ += seen.seconds;
    const bool preempted = seen.preemptions >= kFew && seen.preemptions > kPreemptionsPerSecond * seen.cpu_seconds;
    if (preempted || seen.stolen_share > kStolenShare) {
      // Each time that waking was a mistake the next try comes later.
      if (awake_) hold_ = awake_for_ < kLongAwake ? std::min(2 * hold_, kLongestHold) : kShortestHold;
      held_ = hold_;
    }
    const bool crowded = seen.others + threads_ > cores_;
    awake_ = held_ <= 0.0 && !crowded;
    if (!awake_) awake_for_ = 0.0;
    return awake_;
  }

 private:
  static constexpr double kLongAwake = 1.0, kShortestHold = 0.1, kLongestHold = 3.2;
  // Alone, a thread that computes is preempted a few times a second; beside one that wants its core, every 3 ms.
  static constexpr long kFew = 2;
  static constexpr double kPreemptionsPerSecond = 50.0;
  static constexpr double kStolenShare = 0.02;

  int threads_, cores_;
  bool awake_ = false;
  double held_ = 0.0, hold_ = kShortestHold, awake_for_ = 0.0;
};

// Looks at the machine, at most every 20 ms, and tells OpenMP; to be called by a thread that is about to wake its team.
void look_around();

// Whether idle threads of the team are awake.
bool threads_wait_awake();

// Lets the ops decide; otherwise threads wait as OpenMP was told when it was started.
void adapt_waiting(bool wanted);

}  // namespace paddlemix
