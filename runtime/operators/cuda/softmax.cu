// One block per row of scores: their softmax, in float32 until it is rounded.

#include "common.cuh"

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;

// Joins the largest values of two parts of a row, and their sums of exponentials less the largest.
__device__ inline float2 joined(float2 one, float2 other) {
  float largest = fmaxf(one.x, other.x);
  return make_float2(largest, one.y * __expf(one.x - largest) + other.y * __expf(other.x - largest));
}

extern "C" __global__ void __launch_bounds__(THREADS)
    softmax(const float4* __restrict__ scores, __nv_bfloat162* __restrict__ result, int quads) {
  const float4* row = scores + static_cast<long long>(blockIdx.x) * quads;
  float2 state = make_float2(-3.0e38f, 0.f);
  for (int at = threadIdx.x; at < quads; at += THREADS) {
    float4 four = row[at];
    float largest = fmaxf(fmaxf(four.x, four.y), fmaxf(four.z, four.w));
    float sum = __expf(four.x - largest) + __expf(four.y - largest) + __expf(four.z - largest) +
                __expf(four.w - largest);
    state = joined(state, make_float2(largest, sum));
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    float2 other = make_float2(__shfl_xor_sync(0xffffffffu, state.x, offset),
                               __shfl_xor_sync(0xffffffffu, state.y, offset));
    state = joined(state, other);
  }
  __shared__ float2 states[WARPS];
  if (threadIdx.x % 32 == 0) states[threadIdx.x / 32] = state;
  __syncthreads();
  state = states[0];
#pragma unroll
  for (int warp = 1; warp < WARPS; ++warp) state = joined(state, states[warp]);
  float inverse = 1.f / state.y;
  __nv_bfloat162* own = result + static_cast<long long>(blockIdx.x) * quads * 2;
  for (int at = threadIdx.x; at < quads; at += THREADS) {
    float4 four = row[at];
    own[2 * at] = __floats2bfloat162_rn(__expf(four.x - state.x) * inverse, __expf(four.y - state.x) * inverse);
    own[2 * at + 1] = __floats2bfloat162_rn(__expf(four.z - state.x) * inverse, __expf(four.w - state.x) * inverse);
  }
}
