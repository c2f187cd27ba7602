// Products by the MKL that Paddle's wheels bring beside oneDNN. It runs on the same OpenMP, and so on the same threads.
#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "dnnl.h"
#include "paddlemix/kernels.h"
#include "paddlemix/matmul.h"
#include "paddlemix/threads.h"

namespace paddlemix {
namespace {

constexpr int kRowMajor = 101, kAsIs = 111, kTransposed = 112;  // of CBLAS

struct Mkl {
  void (*sgemm)(int layout, int a, int b, int m, int n, int k, float alpha, const float* left, int left_stride,
                const float* right, int right_stride, float beta, float* c, int c_stride) = nullptr;
  // Of the calling thread; returns the number before.
  int (*set_threads)(int threads) = nullptr;
};

const Mkl& mkl() {
  static const Mkl found = [] {
    Mkl mkl;
    Dl_info onednn;
    if (!dladdr(reinterpret_cast<void*>(&dnnl_version), &onednn) || !onednn.dli_fname) return mkl;
    const std::string path = onednn.dli_fname;
    void* const library = dlopen((path.substr(0, path.rfind('/') + 1) + "libmklml_intel.so").c_str(), RTLD_LAZY);
    if (!library) return mkl;
    mkl.set_threads = reinterpret_cast<int (*)(int)>(dlsym(library, "MKL_Set_Num_Threads_Local"));
    if (mkl.set_threads) mkl.sgemm = reinterpret_cast<decltype(mkl.sgemm)>(dlsym(library, "cblas_sgemm"));
    return mkl;
  }();
  return found;
}

// Each row begins as the bias, to which the product is added.
void fill_rows(const Matmul& shape, float* c) {
  parallel_ranges(shape.m, 1 + (1 << 15) / shape.n, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) std::memcpy(c + row * shape.stride(), shape.bias, sizeof(float) * shape.n);
  });
}

}  // namespace

bool has_mkl() { return mkl().sgemm; }

bool matmul_by_mkl(const Matmul& shape, const Operand& a, const Operand& b, float* c) {
  if (!has_mkl() || std::max({shape.m, shape.k, shape.stride()}) > std::numeric_limits<int>::max()) return false;
  const int m = static_cast<int>(shape.m), k = static_cast<int>(shape.k), n = static_cast<int>(shape.n);
  if (shape.bias) fill_rows(shape, c);
  const int before = mkl().set_threads(num_threads());
  mkl().sgemm(kRowMajor, a.transposed() ? kTransposed : kAsIs, b.transposed() ? kTransposed : kAsIs, m, n, k, 1.0f,
              a.wide(), a.transposed() ? m : k, b.wide(), b.transposed() ? k : n, shape.bias || shape.add ? 1.0f : 0.0f, c,
              static_cast<int>(shape.stride()));
  mkl().set_threads(before);
  if (shape.activation != Activation::kNone)
    parallel_ranges(shape.m * shape.n, 1 << 14, [&](int64_t begin, int64_t end) {
      kernels().activate(shape.activation, c + begin, c + begin, end - begin);
    });
  return true;
}

}  // namespace paddlemix
