#include "paddlemix/waiting.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <mutex>

#include "paddlemix/threads.h"

// Of Intel's OpenMP, which Paddle's wheels bring; the ops may run on another, whose threads wait as it was started.
extern "C" __attribute__((weak)) void kmp_set_blocktime(int milliseconds);
extern "C" __attribute__((weak)) int kmp_get_blocktime();

namespace paddlemix {
namespace {

// For how long threads wait awake, in milliseconds: far more than between two ops, or two tokens.
constexpr int kAwake = 1, kAsleep = 0;
constexpr double kSecondsOfALook = 0.02;
// The file that tells stolen time is long on machines of many cores.
constexpr double kSecondsOfALookForThieves = 1.0;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The beginning of a file of the kernel's; empty where it cannot be read.
template <std::size_t kSize>
void read_start(const char* path, char (&text)[kSize]) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  const ssize_t length = file < 0 ? 0 : read(file, text, kSize - 1);
  if (file >= 0) close(file);
  text[length < 0 ? 0 : length] = '\0';
}

// Threads of the machine that run or wait for a core, this one among them.
int runnable_threads() {
  char text[128];
  read_start("/proc/loadavg", text);
  int runnable = 1;
  std::sscanf(text, "%*s %*s %*s %d/", &runnable);
  return runnable;
}

struct CoreTimes {
  double all = 0.0, stolen = 0.0;
};

CoreTimes core_times() {
  char text[256];
  read_start("/proc/stat", text);
  double user = 0, nice = 0, system = 0, idle = 0, waiting = 0, hard = 0, soft = 0, stolen = 0;
  std::sscanf(text, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", &user, &nice, &system, &idle, &waiting, &hard, &soft, &stolen);
  return {user + nice + system + idle + waiting + hard + soft + stolen, stolen};
}

// What is compared from look to look.
class Watch {
 public:
  // Returns what was seen since the last call, by a thread whose team has so many.
  Sighting since_last(int threads, bool awake) {
    const double time = now();
    rusage use;
    getrusage(RUSAGE_SELF, &use);
    const double cpu = use.ru_utime.tv_sec + use.ru_stime.tv_sec + 1e-6 * (use.ru_utime.tv_usec + use.ru_stime.tv_usec);
    // Threads that wait awake are among those that run.
    const int others = std::max(0, runnable_threads() - (awake ? threads : 1));
    const Sighting seen{time - time_, cpu - cpu_, use.ru_nivcsw - preemptions_, others, stolen_share(time)};
    time_ = time, cpu_ = cpu, preemptions_ = use.ru_nivcsw;
    return seen;
  }

 private:
  double stolen_share(double time) {
    if (time - thieves_time_ < kSecondsOfALookForThieves) return 0.0;
    const CoreTimes times = core_times();
    const double passed = times.all - times_.all, stolen = times.stolen - times_.stolen;
    const bool is_first = thieves_time_ == 0.0;
    thieves_time_ = time, times_ = times;
    return is_first || passed <= 0.0 ? 0.0 : stolen / passed;
  }

  double time_ = now(), cpu_ = 0.0, thieves_time_ = 0.0;
  long preemptions_ = 0;
  CoreTimes times_;
};

struct State {
  std::mutex looking;
  Watch watch;
  WaitPolicy policy{1, 1};
  int threads = 0;
};

State& state() {
  static State one;
  return one;
}

std::atomic<bool> adapts{false}, awake{false};
std::atomic<double> next_look{0.0};

void decide(double time) {
  State& s = state();
  const std::unique_lock<std::mutex> only(s.looking, std::try_to_lock);
  if (!only.owns_lock()) return;
  next_look = time + kSecondsOfALook;
  if (s.threads != num_threads()) {
    s.threads = num_threads();
    s.policy = WaitPolicy(s.threads, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
  }
  awake = s.policy.look(s.watch.since_last(s.threads, awake));
}

}  // namespace

void look_around() {
  if (!adapts) return;
  const double time = now();
  if (time >= next_look) decide(time);
  // OpenMP keeps it for each thread that has a team.
  static thread_local int told = kAsleep;
  const int wait = awake ? kAwake : kAsleep;
  if (told != wait) kmp_set_blocktime(told = wait);
}

bool threads_wait_awake() { return awake; }

void adapt_waiting(bool wanted) {
  adapts = wanted && kmp_set_blocktime;
  if (!adapts) awake = kmp_get_blocktime && kmp_get_blocktime() > kAsleep;
}

}  // namespace paddlemix
