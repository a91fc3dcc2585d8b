// Widens rows of E4M3 to bfloat16, times a scale, and one in memory if there are some, `scale_step` from row to row; rows
// begin `stride` values apart, those of the result lie together.

#include "common.cuh"

extern "C" __global__ void widen(const __nv_fp8_storage_t* x, __nv_bfloat16* result, long long packs, int packs_per_row,
                                 long long stride, float scale, const float* scales, int scale_step) {
  long long pack = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (pack >= packs) return;
  long long row = pack / packs_per_row;
  long long column = (pack - row * packs_per_row) * PACK;
  Fp8Pack narrow = *reinterpret_cast<const Fp8Pack*>(x + row * stride + column);
  float factor = scales ? scale * scales[row * scale_step] : scale;
  float values[PACK];
#pragma unroll
  for (int i = 0; i < PACK / 2; ++i) {
    float2 pair = __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2(narrow.pairs[i], __NV_E4M3)));
    values[2 * i] = pair.x * factor;
    values[2 * i + 1] = pair.y * factor;
  }
  store(result + pack * PACK, values);
}
