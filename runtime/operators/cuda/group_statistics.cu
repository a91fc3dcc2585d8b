// One block per chunk of a picture's pixels (h * w, c): sums of each group's values and of their squares, less the
// group's first value, which keeps differences of large numbers out of the variance.
//
// CHANNELS: those of a pixel. GROUPS: how many groups of neighbours they make.

#include "common.cuh"

constexpr int PACKS = CHANNELS / PACK;
constexpr int ROWS = 256 / PACKS;  // pixels that a block reads at once
constexpr int THREADS = ROWS * PACKS;
constexpr int WIDTH = CHANNELS / GROUPS;
constexpr int GRAIN = WIDTH % 8 == 0 ? 8 : WIDTH % 4 == 0 ? 4 : WIDTH % 2 == 0 ? 2 : 1;  // divides packs and groups
constexpr int PARTS = PACK / GRAIN;  // grains within a pack
constexpr int SHARERS = WIDTH / GRAIN;  // grains within a group

extern "C" __global__ void __launch_bounds__(THREADS)
    group_statistics(const __nv_bfloat16* __restrict__ x, float2* __restrict__ sums, long long pixels, int chunks) {
  long long picture = blockIdx.x / chunks;
  int chunk = blockIdx.x % chunks, pack = threadIdx.x % PACKS;
  const __nv_bfloat16* own = x + picture * pixels * CHANNELS;
  float values[PACK], firsts[PARTS], plain[PARTS] = {}, squares[PARTS] = {};
#pragma unroll
  for (int part = 0; part < PARTS; ++part)
    firsts[part] = __bfloat162float(own[(pack * PACK + part * GRAIN) / WIDTH * WIDTH]);
  long long last = pixels * (chunk + 1) / chunks;
#pragma unroll 4
  for (long long pixel = pixels * chunk / chunks + threadIdx.x / PACKS; pixel < last; pixel += ROWS) {
    load(own + pixel * CHANNELS + pack * PACK, values);
#pragma unroll
    for (int i = 0; i < PACK; ++i) {
      float difference = values[i] - firsts[i / GRAIN];
      plain[i / GRAIN] += difference;
      squares[i / GRAIN] += difference * difference;
    }
  }
  __shared__ float2 parts[PARTS][THREADS];
#pragma unroll
  for (int part = 0; part < PARTS; ++part) parts[part][threadIdx.x] = make_float2(plain[part], squares[part]);
  __syncthreads();
  for (int group = threadIdx.x; group < GROUPS; group += THREADS) {
    float2 total = make_float2(0.f, 0.f);
    for (int row = 0; row < ROWS; ++row) {
      for (int sharer = 0; sharer < SHARERS; ++sharer) {
        int grain = group * SHARERS + sharer;
        float2 one = parts[grain % PARTS][row * PACKS + grain / PARTS];
        total.x += one.x;
        total.y += one.y;
      }
    }
    sums[(picture * GROUPS + group) * chunks + chunk] = total;
  }
}
