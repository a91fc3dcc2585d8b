// What a lane computes of a head of one token: RMS norm, rotation of interleaved pairs, and Hadamard's matrix.
//
// HEAD_WIDTH: the width of a head. HEADS: their number.

#include "common.cuh"

constexpr int LANES = HEAD_WIDTH / PACK;  // that share a head

// The tables and the norm's weights of a lane's channels in one token.
struct Turn {
  float norms[PACK], c[PACK / 2], s[PACK / 2];

  __device__ Turn(const __nv_bfloat16* weights, const float* cos, const float* sin, long long token, int lane) {
    load(weights + lane * PACK, norms);
    float4 cosines = *reinterpret_cast<const float4*>(cos + (token * LANES + lane) * (PACK / 2));
    float4 sines = *reinterpret_cast<const float4*>(sin + (token * LANES + lane) * (PACK / 2));
    c[0] = cosines.x, c[1] = cosines.y, c[2] = cosines.z, c[3] = cosines.w;
    s[0] = sines.x, s[1] = sines.y, s[2] = sines.z, s[3] = sines.w;
  }

  // Norms and rotates a head's values. All lanes of a warp take part in its sums.
  __device__ void operator()(float (&values)[PACK], float factor) const {
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
  }
};

// Multiplies a head by Hadamard's matrix over the root of its width: channel i and j share (-1)^(bits that both have).
__device__ inline void hadamard(float (&values)[PACK], int lane) {
#pragma unroll
  for (int step = 1; step < PACK; step *= 2) {
#pragma unroll
    for (int i = 0; i < PACK; ++i) {
      if (i & step) continue;
      float one = values[i], other = values[i | step];
      values[i] = one + other;
      values[i | step] = one - other;
    }
  }
#pragma unroll
  for (int step = 1; step < LANES; step *= 2) {
#pragma unroll
    for (int i = 0; i < PACK; ++i) {
      float other = __shfl_xor_sync(0xffffffffu, values[i], step);
      values[i] = lane & step ? other - values[i] : values[i] + other;
    }
  }
  const float root = rsqrtf(static_cast<float>(HEAD_WIDTH));
#pragma unroll
  for (int i = 0; i < PACK; ++i) values[i] *= root;
}
