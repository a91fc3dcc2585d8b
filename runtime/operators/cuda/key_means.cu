// One block per head of a picture: the mean of its normed and rotated values over every `step`th token, in float32.

#include "heads.cuh"

constexpr int ROWS = 256 / LANES;  // tokens that a block reads at once
constexpr int THREADS = ROWS * LANES;

extern "C" __global__ void __launch_bounds__(THREADS)
    key_means(const __nv_bfloat16* x, float* mean, const __nv_bfloat16* first_weight, const __nv_bfloat16* weight,
              const float* cos, const float* sin, long long tokens_per_picture, long long first_tokens, long long step) {
  long long picture = blockIdx.x / HEADS, count = (tokens_per_picture + step - 1) / step;
  int head = blockIdx.x % HEADS, lane = threadIdx.x % LANES, row = threadIdx.x / LANES;
  float sums[PACK] = {}, values[PACK];
  for (long long round = 0; round < count; round += ROWS) {  // all lanes of a warp take part in its sums
    long long one = round + row, token = min(one, count - 1) * step;
    load(x + ((picture * tokens_per_picture + token) * HEADS + head) * HEAD_WIDTH + lane * PACK, values);
    Turn turn(token < first_tokens ? first_weight : weight, cos, sin, token, lane);
    turn(values, 1.f);
    if (one < count) {
#pragma unroll
      for (int i = 0; i < PACK; ++i) sums[i] += values[i];
    }
  }
  __shared__ float parts[ROWS][HEAD_WIDTH];
#pragma unroll
  for (int i = 0; i < PACK; ++i) parts[row][lane * PACK + i] = sums[i];
  __syncthreads();
  for (int channel = threadIdx.x; channel < HEAD_WIDTH; channel += THREADS) {
    float total = 0.f;
    for (int other = 0; other < ROWS; ++other) total += parts[other][channel];
    mean[(picture * HEADS + head) * HEAD_WIDTH + channel] = total / count;
  }
}
