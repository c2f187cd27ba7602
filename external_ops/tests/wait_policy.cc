// Reads what was seen, a line a look (seconds, cpu_seconds, preemptions, others, stolen_share), for a team of as many
// threads and a machine of as many cores as the arguments say; prints for each whether threads then wait awake.
#include <cstdio>
#include <cstdlib>

#include "paddlemix/waiting.h"

int main(int, char** arguments) {
  paddlemix::WaitPolicy policy(std::atoi(arguments[1]), std::atoi(arguments[2]));
  paddlemix::Sighting seen;
  while (std::scanf("%lf %lf %ld %d %lf", &seen.seconds, &seen.cpu_seconds, &seen.preemptions, &seen.others,
                    &seen.stolen_share) == 5)
    std::putchar(policy.look(seen) ? '1' : '0');
}
