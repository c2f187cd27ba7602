// Memory for intermediate numbers, aligned to cache lines and not initialised.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <new>

namespace paddlemix {

// Much of it is the system's, in huge pages where there are any, and goes back at once: the process keeps what `free`
// is given (`paddlemix/_environment.py`), but nothing else of a step needs so much in one piece.
template <typename T>
class Scratch {
 public:
  explicit Scratch(std::size_t count) : bytes_((count * sizeof(T) + 63) / 64 * 64) {
    if (is_mapped()) {
      void* const mapped = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (mapped == MAP_FAILED) throw std::bad_alloc();
      madvise(mapped, bytes_, MADV_HUGEPAGE);
      data_ = static_cast<T*>(mapped);
    } else {
      data_ = static_cast<T*>(std::aligned_alloc(64, bytes_ ? bytes_ : 64));
      if (!data_) throw std::bad_alloc();
    }
  }
  ~Scratch() {
    if (is_mapped())
      munmap(data_, bytes_);
    else
      std::free(data_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* get() const { return data_; }
  operator T*() const { return data_; }

 private:
  bool is_mapped() const { return bytes_ >= std::size_t{32} << 20; }

  std::size_t bytes_;
  T* data_;
};

}  // namespace paddlemix
