// Copies rows of values to rows of another width: those beyond it are left out, and those that lack are 0.

#include "common.cuh"

extern "C" __global__ void channels(const __nv_bfloat16* __restrict__ x, __nv_bfloat16* __restrict__ y,
                                    long long values, int width, int result_width) {
  long long at = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= values) return;
  long long row = at / result_width;
  int column = static_cast<int>(at - row * result_width);
  y[at] = column < width ? x[row * width + column] : __float2bfloat16(0.f);
}
