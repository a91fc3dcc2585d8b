// Rounds rows of bfloat16 to E4M3; rows begin `stride` values apart, those of the result `result_stride`.

#include "common.cuh"

extern "C" __global__ void quantize(const __nv_bfloat16* x, __nv_fp8_storage_t* result, long long packs,
                                    int packs_per_row, long long stride, long long result_stride, float inverse) {
  long long pack = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (pack >= packs) return;
  long long row = pack / packs_per_row;
  long long column = (pack - row * packs_per_row) * PACK;
  float values[PACK];
  load(x + row * stride + column, values);
  store(result + row * result_stride + column, values, inverse);
}
