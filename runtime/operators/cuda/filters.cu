// Turns filters (outputs, inputs, taps) to (outputs, taps, inputs) of other extents; what lacks is 0.

#include "common.cuh"

extern "C" __global__ void filters(const __nv_bfloat16* __restrict__ x, __nv_bfloat16* __restrict__ y, int outputs,
                                   int inputs, int taps, long long values, int result_inputs) {
  long long at = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= values) return;
  long long row = at / result_inputs, output = row / taps;
  int input = static_cast<int>(at - row * result_inputs), tap = static_cast<int>(row - output * taps);
  bool there = output < outputs && input < inputs;
  y[at] = there ? x[(output * inputs + input) * taps + tap] : __float2bfloat16(0.f);
}
