// One block per chunk of a picture's pixels (h * w, c): group norm by means and inverse deviations, weight and bias.
// The last chunks come first: of them the statistics' reading left most in the L2 cache.
//
// CHANNELS: those of a pixel. GROUPS: how many groups of neighbours they make. SILU: of the result.

#include "common.cuh"

constexpr int PACKS = CHANNELS / PACK;
constexpr int ROWS = 256 / PACKS;  // pixels that a block reads at once
constexpr int THREADS = ROWS * PACKS;
constexpr int WIDTH = CHANNELS / GROUPS;

extern "C" __global__ void __launch_bounds__(THREADS)
    group_norm(const __nv_bfloat16* __restrict__ x, const __nv_bfloat16* __restrict__ weight,
               const __nv_bfloat16* __restrict__ bias, const float2* __restrict__ means, __nv_bfloat16* __restrict__ y,
               long long pixels, int chunks) {
  long long block = gridDim.x - 1 - blockIdx.x;
  long long picture = block / chunks, chunk = block % chunks;
  int channel = threadIdx.x % PACKS * PACK;
  float factors[PACK], offsets[PACK], centres[PACK];
  load(weight + channel, factors);
  load(bias + channel, offsets);
#pragma unroll
  for (int i = 0; i < PACK; ++i) {
    float2 mean = means[picture * GROUPS + (channel + i) / WIDTH];
    centres[i] = mean.x;
    factors[i] *= mean.y;
  }
  long long last = pixels * (chunk + 1) / chunks;
#pragma unroll 4
  for (long long pixel = pixels * chunk / chunks + threadIdx.x / PACKS; pixel < last; pixel += ROWS) {
    long long at = (picture * pixels + pixel) * CHANNELS + channel;
    float values[PACK];
    load(x + at, values);
#pragma unroll
    for (int i = 0; i < PACK; ++i) {
      float value = (values[i] - centres[i]) * factors[i] + offsets[i];
#if SILU
      value = __fdividef(value, 1.f + __expf(-value));
#endif
      values[i] = value;
    }
    store(y + at, values);
  }
}
