// One block per row of scores: their softmax, in float32 until it is rounded. Rows begin `stride` values apart, a
// multiple of four, so that the last four of a row may be in part what lies behind it: that counts as nothing.

#include "common.cuh"

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
constexpr float LOWEST = -3.0e38f;

// Joins the largest values of two parts of a row, and their sums of exponentials less the largest.
__device__ inline float2 joined(float2 one, float2 other) {
  float largest = fmaxf(one.x, other.x);
  return make_float2(largest, one.y * __expf(one.x - largest) + other.y * __expf(other.x - largest));
}

// The four scores from `first`, those behind the last key so low that their exponentials are 0.
__device__ inline float4 scores_of(const float* row, int first, int keys) {
  float4 four = *reinterpret_cast<const float4*>(row + first);
  if (first + 1 >= keys) four.y = LOWEST;
  if (first + 2 >= keys) four.z = LOWEST;
  if (first + 3 >= keys) four.w = LOWEST;
  return four;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    softmax(const float* __restrict__ scores, __nv_bfloat16* __restrict__ result, int keys, int stride) {
  const float* row = scores + static_cast<long long>(blockIdx.x) * stride;
  float2 state = make_float2(LOWEST, 0.f);
  for (int first = 4 * threadIdx.x; first < keys; first += 4 * THREADS) {
    float4 four = scores_of(row, first, keys);
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
  __nv_bfloat16* own = result + static_cast<long long>(blockIdx.x) * stride;
  for (int first = 4 * threadIdx.x; first < keys; first += 4 * THREADS) {
    float4 four = scores_of(row, first, keys);
    auto* two = reinterpret_cast<__nv_bfloat162*>(own + first);
    two[0] = __floats2bfloat162_rn(__expf(four.x - state.x) * inverse, __expf(four.y - state.x) * inverse);
    two[1] = __floats2bfloat162_rn(__expf(four.z - state.x) * inverse, __expf(four.w - state.x) * inverse);
  }
}
