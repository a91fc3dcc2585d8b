// One warp per group of a picture: its mean and the inverse of its deviation, of the sums of all chunks.
//
// CHANNELS: those of a pixel. GROUPS: how many groups of neighbours they make.

#include "common.cuh"

constexpr int WIDTH = CHANNELS / GROUPS;

extern "C" __global__ void group_means(const __nv_bfloat16* __restrict__ x, const float2* __restrict__ sums,
                                       float2* __restrict__ means, long long pixels, int chunks) {
  long long picture = blockIdx.x / GROUPS;
  float plain = 0.f, squares = 0.f;
  for (int chunk = threadIdx.x; chunk < chunks; chunk += 32) {
    float2 one = sums[static_cast<long long>(blockIdx.x) * chunks + chunk];
    plain += one.x;
    squares += one.y;
  }
  float count = static_cast<float>(pixels) * WIDTH;
  float mean = lane_sum<32>(plain) / count;
  float variance = lane_sum<32>(squares) / count - mean * mean;
  if (threadIdx.x != 0) return;
  float first = __bfloat162float(x[picture * pixels * CHANNELS + blockIdx.x % GROUPS * WIDTH]);
  means[blockIdx.x] = make_float2(first + mean, rsqrtf(fmaxf(variance, 0.f) + 1e-6f));
}
