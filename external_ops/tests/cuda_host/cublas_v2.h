// What the CUDA ops use of cuBLAS, as plain loops on the host.
#pragma once

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "cuda_runtime.h"

enum cublasStatus_t { CUBLAS_STATUS_SUCCESS = 0, CUBLAS_STATUS_INVALID_VALUE = 7 };
enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T };
enum cublasComputeType_t { CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32 };
enum cublasGemmAlgo_t { CUBLAS_GEMM_DEFAULT };
using cublasHandle_t = void*;

inline cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  static char here;
  *handle = &here;
  return CUBLAS_STATUS_SUCCESS;
}

inline cublasStatus_t cublasSetStream(cublasHandle_t, cudaStream_t) { return CUBLAS_STATUS_SUCCESS; }

namespace host {

inline float number(const void* from, cudaDataType_t type, long long i) {
  if (type == CUDA_R_16BF) return __bfloat162float(static_cast<const __nv_bfloat16*>(from)[i]);
  if (type == CUDA_R_16F) return __half2float(static_cast<const __half*>(from)[i]);
  return static_cast<const float*>(from)[i];
}

inline void put(void* to, cudaDataType_t type, long long i, float x) {
  if (type == CUDA_R_16BF)
    static_cast<__nv_bfloat16*>(to)[i] = __float2bfloat16(x);
  else if (type == CUDA_R_16F)
    static_cast<__half*>(to)[i] = __float2half(x);
  else
    static_cast<float*>(to)[i] = x;
}

}  // namespace host

// As the card takes a float32 number into a product of TF32: 10 bits behind the point are left.
inline float rounded_to_tf32(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits = (bits + 0x1000u) & ~0x1fffu;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// c[m, n] = alpha a[m, k] b[k, n] + beta c, all counted by columns.
inline cublasStatus_t cublasGemmEx(cublasHandle_t, cublasOperation_t a_way, cublasOperation_t b_way, int m, int n, int k,
                                   const void* alpha, const void* a, cudaDataType_t a_type, int lda, const void* b,
                                   cudaDataType_t b_type, int ldb, const void* beta, void* c, cudaDataType_t c_type,
                                   int ldc, cublasComputeType_t compute, cublasGemmAlgo_t) {
  const int a_rows = a_way == CUBLAS_OP_N ? m : k, b_rows = b_way == CUBLAS_OP_N ? k : n;
  if (a_type != b_type || lda < a_rows || ldb < b_rows || ldc < m) return CUBLAS_STATUS_INVALID_VALUE;
  const float scale = *static_cast<const float*>(alpha), before = *static_cast<const float*>(beta);
  for (int column = 0; column < n; ++column)
    for (int row = 0; row < m; ++row) {
      double sum = 0.0;
      for (int i = 0; i < k; ++i) {
        const long long a_place = a_way == CUBLAS_OP_N ? row + 1LL * i * lda : i + 1LL * row * lda;
        const long long b_place = b_way == CUBLAS_OP_N ? i + 1LL * column * ldb : column + 1LL * i * ldb;
        float x = host::number(a, a_type, a_place), y = host::number(b, b_type, b_place);
        if (compute == CUBLAS_COMPUTE_32F_FAST_TF32) x = rounded_to_tf32(x), y = rounded_to_tf32(y);
        sum += 1.0 * x * y;
      }
      const long long place = row + 1LL * column * ldc;
      // Where nothing is added, what c holds is not read: it may be NaN.
      const float old = before == 0.0f ? 0.0f : before * host::number(c, c_type, place);
      host::put(c, c_type, place, static_cast<float>(scale * sum) + old);
    }
  return CUBLAS_STATUS_SUCCESS;
}
