// Matrix products through cuBLAS: row by row, summed in float32.
#pragma once

#include <cublas_v2.h>

#include <limits>
#include <map>

#include "launch.cuh"

namespace paddlemix {

inline void check(cublasStatus_t status) {
  if (status != CUBLAS_STATUS_SUCCESS) throw std::runtime_error("cuBLAS: status " + std::to_string(status));
}

// Of this thread and device, made at the first call and kept: that takes milliseconds.
inline cublasHandle_t cublas_handle(cudaStream_t stream) {
  thread_local std::map<int, cublasHandle_t> handles;
  int device = 0;
  check(cudaGetDevice(&device));
  cublasHandle_t& handle = handles[device];
  if (!handle) check(cublasCreate(&handle));
  check(cublasSetStream(handle, stream));
  return handle;
}

inline cudaDataType_t type_of(const float*) { return CUDA_R_32F; }
inline cudaDataType_t type_of(const __nv_bfloat16*) { return CUDA_R_16BF; }
inline cudaDataType_t type_of(const __half*) { return CUDA_R_16F; }

// [rows, columns], or held the other way round where `transposed`.
template <typename T>
struct Matrix {
  const T* numbers;
  bool transposed;
};

// y[m, n] = x[m, k] w[k, n], added to what y holds where `add`. Factors in float32 are rounded to TF32, whose products
// run several times as fast, where `tf32`; sums are float32 always.
struct Product {
  int64_t m, k, n;
  bool add, tf32;
  int64_t stride = 0;  // numbers from one row of y to the next; 0 is n
};

template <typename T, typename Y>
void matmul(const Product& shape, Matrix<T> x, Matrix<T> w, Y* y, cudaStream_t stream) {
  if (std::max({shape.m, shape.k, shape.n, shape.stride}) > std::numeric_limits<int>::max())
    throw std::invalid_argument("a matrix has more than 2147483647 rows or columns");
  const int m = static_cast<int>(shape.m), k = static_cast<int>(shape.k), n = static_cast<int>(shape.n);
  const int stride = shape.stride ? static_cast<int>(shape.stride) : n;
  const float one = 1.0f, before = shape.add ? 1.0f : 0.0f;
  const bool rounds = shape.tf32 && std::is_same_v<T, float>;
  // cuBLAS counts by columns: read so, memory holds the transposed matrices, and y' = w' x'.
  check(cublasGemmEx(cublas_handle(stream), w.transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                     x.transposed ? CUBLAS_OP_T : CUBLAS_OP_N, n, m, k, &one, w.numbers, type_of(w.numbers),
                     w.transposed ? k : n, x.numbers, type_of(x.numbers), x.transposed ? m : k, &before, y,
                     type_of(y), stride, rounds ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
                     CUBLAS_GEMM_DEFAULT));
}

}  // namespace paddlemix
