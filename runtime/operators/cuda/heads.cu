// One block per token: RMS norm of each head, and rotation of its interleaved pairs. The result may lie where x does.
//
// FP8: to E4M3, less the mean (pictures, HEADS * HEAD_WIDTH) if there is one, and by Hadamard's matrix.

#include "heads.cuh"

extern "C" __global__ void heads(const __nv_bfloat16* x, void* result, const __nv_bfloat16* first_weight,
                                 const __nv_bfloat16* weight, const float* cos, const float* sin, const float* mean,
                                 long long tokens_per_picture, long long first_tokens, float factor, float inverse) {
  long long picture = blockIdx.x / tokens_per_picture, token = blockIdx.x % tokens_per_picture;
  int lane = threadIdx.x % LANES;
  Turn turn(token < first_tokens ? first_weight : weight, cos, sin, token, lane);
  float values[PACK];
  for (int round = 0; round < HEADS; round += blockDim.x / LANES) {
    int head = round + threadIdx.x / LANES;  // all lanes of a warp take part in its sums
    int channel = min(head, HEADS - 1) * HEAD_WIDTH + lane * PACK;
    long long at = static_cast<long long>(blockIdx.x) * HEADS * HEAD_WIDTH + channel;
    load(x + at, values);
    turn(values, factor);
#if FP8
    if (mean) {
#pragma unroll
      for (int i = 0; i < PACK; ++i) values[i] -= mean[picture * HEADS * HEAD_WIDTH + channel + i];
    }
    hadamard(values, lane);
    if (head < HEADS) store(static_cast<__nv_fp8_storage_t*>(result) + at, values, inverse);
#else
    if (head < HEADS) store(static_cast<__nv_bfloat16*>(result) + at, values);
#endif
  }
}
