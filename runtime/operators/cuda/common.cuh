// Values come and go in packs of 16 bytes, eight bfloat16, and are computed in float32.

#include <cuda_bf16.h>
#include <cuda_fp8.h>

constexpr int PACK = 8;

struct alignas(16) Pack {
  __nv_bfloat162 pairs[PACK / 2];
};

struct alignas(8) Fp8Pack {
  __nv_fp8x2_storage_t pairs[PACK / 2];
};

__device__ inline void load(const __nv_bfloat16* from, float (&values)[PACK]) {
  Pack pack = *reinterpret_cast<const Pack*>(from);
#pragma unroll
  for (int i = 0; i < PACK / 2; ++i) {
    float2 pair = __bfloat1622float2(pack.pairs[i]);
    values[2 * i] = pair.x;
    values[2 * i + 1] = pair.y;
  }
}

// Rounds values to bfloat16, in place too, so that what follows computes with what is stored.
__device__ inline void store(__nv_bfloat16* to, float (&values)[PACK]) {
  Pack pack;
#pragma unroll
  for (int i = 0; i < PACK / 2; ++i) {
    pack.pairs[i] = __floats2bfloat162_rn(values[2 * i], values[2 * i + 1]);
    float2 pair = __bfloat1622float2(pack.pairs[i]);
    values[2 * i] = pair.x;
    values[2 * i + 1] = pair.y;
  }
  *reinterpret_cast<Pack*>(to) = pack;
}

// Rounds values, multiplied by 1 / scale, to E4M3; beyond 448 they saturate.
__device__ inline void store(__nv_fp8_storage_t* to, float (&values)[PACK], float inverse) {
  Fp8Pack pack;
#pragma unroll
  for (int i = 0; i < PACK / 2; ++i) {
    float2 pair = make_float2(values[2 * i] * inverse, values[2 * i + 1] * inverse);
    pack.pairs[i] = __nv_cvt_float2_to_fp8x2(pair, __NV_SATFINITE, __NV_E4M3);
  }
  *reinterpret_cast<Fp8Pack*>(to) = pack;
}

template <int WIDTH>
__device__ inline float lane_sum(float value) {
#pragma unroll
  for (int offset = WIDTH / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}
