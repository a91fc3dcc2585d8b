// One block per token: x + gate * change, then layer norm, scale and shift.
//
// HIDDEN: the width of a token. GATED: a change is added and the sum stored. NORMED: it is normed. FP8: to E4M3.

#include "common.cuh"

constexpr int PACKS = HIDDEN / PACK;
constexpr int THREADS = PACKS >= 1024 ? 1024 : (PACKS + 31) / 32 * 32;
constexpr int ROUNDS = (PACKS + THREADS - 1) / THREADS;

__device__ inline float block_sum(float value) {
  __shared__ float partial[32];
  value = lane_sum<32>(value);
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  float total = threadIdx.x % 32 < THREADS / 32 ? partial[threadIdx.x % 32] : 0.f;
  return lane_sum<32>(total);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    modulate(const __nv_bfloat16* x, const __nv_bfloat16* change, const __nv_bfloat16* gate,
             const __nv_bfloat16* shift, const __nv_bfloat16* scale, __nv_bfloat16* tokens, void* normed,
             long long tokens_per_picture, float inverse) {
  long long row = static_cast<long long>(blockIdx.x) * HIDDEN;
  long long vector = blockIdx.x / tokens_per_picture * HIDDEN;
  float values[ROUNDS][PACK];
  float sum = 0.f;
#pragma unroll
  for (int round = 0; round < ROUNDS; ++round) {
    int at = (round * THREADS + threadIdx.x) * PACK;
    if (at >= HIDDEN) continue;
    load(x + row + at, values[round]);
#if GATED
    float changes[PACK], gates[PACK];
    load(change + row + at, changes);
    load(gate + vector + at, gates);
#pragma unroll
    for (int i = 0; i < PACK; ++i) values[round][i] = __fadd_rn(values[round][i], __fmul_rn(gates[i], changes[i]));
    store(tokens + row + at, values[round]);
#endif
#pragma unroll
    for (int i = 0; i < PACK; ++i) sum += values[round][i];
  }
#if NORMED
  float mean = block_sum(sum) / HIDDEN;
  float squares = 0.f;
#pragma unroll
  for (int round = 0; round < ROUNDS; ++round) {
    if ((round * THREADS + threadIdx.x) * PACK >= HIDDEN) continue;
#pragma unroll
    for (int i = 0; i < PACK; ++i) {
      values[round][i] -= mean;
      squares += values[round][i] * values[round][i];
    }
  }
  float inverse_deviation = rsqrtf(block_sum(squares) / HIDDEN + 1e-6f);
#pragma unroll
  for (int round = 0; round < ROUNDS; ++round) {
    int at = (round * THREADS + threadIdx.x) * PACK;
    if (at >= HIDDEN) continue;
    float scales[PACK], shifts[PACK];
    load(scale + vector + at, scales);
    load(shift + vector + at, shifts);
#pragma unroll
    for (int i = 0; i < PACK; ++i)
      values[round][i] = values[round][i] * inverse_deviation * (1.f + scales[i]) + shifts[i];
#if FP8
    store(static_cast<__nv_fp8_storage_t*>(normed) + row + at, values[round], inverse);
#else
    store(static_cast<__nv_bfloat16*>(normed) + row + at, values[round]);
#endif
  }
#endif
}
