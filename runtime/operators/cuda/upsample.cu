// Writes every pixel of pictures (b, h, w, c) four times: once in each place of a square of the doubled picture.
//
// CHANNELS: those of a pixel.

#include "common.cuh"

constexpr int PACKS = CHANNELS / PACK;

extern "C" __global__ void upsample(const Pack* __restrict__ x, Pack* __restrict__ y, long long packs, int width) {
  long long at = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= packs) return;
  Pack one = x[at];
  long long pixel = at / PACKS, row = pixel / width;
  Pack* first = y + (row * 4 * width + (pixel - row * width) * 2) * PACKS + at % PACKS;
  Pack* second = first + 2LL * width * PACKS;
  first[0] = first[PACKS] = second[0] = second[PACKS] = one;
}
