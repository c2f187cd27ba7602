// Which of the sets of kernels this processor runs.
#pragma once

#include <cstdlib>
#include <cstring>

namespace paddlemix {

enum class InstructionSet { kPlain, kAvx2, kAvx512 };

inline InstructionSet best_instruction_set() {
#if defined(__x86_64__)
  // For tests of the slower paths; a set that the processor lacks is not taken.
  const char* wanted = std::getenv("PADDLEMIX_OPS_ISA");
  const auto allowed = [&](const char* name) { return !wanted || !std::strcmp(wanted, name); };
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512vl");
  if (has_avx512 && allowed("avx512")) return InstructionSet::kAvx512;
  if (has_avx2 && (allowed("avx2") || allowed("avx512"))) return InstructionSet::kAvx2;
#endif
  return InstructionSet::kPlain;
}

}  // namespace paddlemix
