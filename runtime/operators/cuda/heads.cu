// One block per token: RMS norm of each head, and rotation of its interleaved pairs. The result may lie where x does.
//
// HEAD_WIDTH: the width of a head. HEADS: their number. FP8: to E4M3.

#include "common.cuh"

constexpr int LANES = HEAD_WIDTH / PACK;  // that share a head

extern "C" __global__ void heads(const __nv_bfloat16* x, void* result, const __nv_bfloat16* first_weight,
                                 const __nv_bfloat16* weight, const float* cos, const float* sin,
                                 long long tokens_per_picture, long long first_tokens, float factor, float inverse) {
  long long token = blockIdx.x % tokens_per_picture;
  const __nv_bfloat16* weights = token < first_tokens ? first_weight : weight;
  int lane = threadIdx.x % LANES;
  float norms[PACK], values[PACK];
  load(weights + lane * PACK, norms);
  float4 cosines = *reinterpret_cast<const float4*>(cos + (token * LANES + lane) * (PACK / 2));
  float4 sines = *reinterpret_cast<const float4*>(sin + (token * LANES + lane) * (PACK / 2));
  float c[PACK / 2] = {cosines.x, cosines.y, cosines.z, cosines.w};
  float s[PACK / 2] = {sines.x, sines.y, sines.z, sines.w};
  for (int round = 0; round < HEADS; round += blockDim.x / LANES) {
    int head = round + threadIdx.x / LANES;  // all lanes of a warp take part in its sums
    long long at = (static_cast<long long>(blockIdx.x) * HEADS + min(head, HEADS - 1)) * HEAD_WIDTH + lane * PACK;
    load(x + at, values);
    float squares = 0.f;
#pragma unroll
    for (int i = 0; i < PACK; ++i) squares += values[i] * values[i];
    float norm = rsqrtf(lane_sum<LANES>(squares) / HEAD_WIDTH + 1e-6f);
#pragma unroll
    for (int i = 0; i < PACK / 2; ++i) {
      float even = values[2 * i] * norm * norms[2 * i];
      float odd = values[2 * i + 1] * norm * norms[2 * i + 1];
      values[2 * i] = (even * c[i] - odd * s[i]) * factor;
      values[2 * i + 1] = (even * s[i] + odd * c[i]) * factor;
    }
    if (head >= HEADS) continue;
#if FP8
    store(static_cast<__nv_fp8_storage_t*>(result) + at, values, inverse);
#else
    store(static_cast<__nv_bfloat16*>(result) + at, values);
#endif
  }
}
