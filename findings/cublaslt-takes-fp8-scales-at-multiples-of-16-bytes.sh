#!/usr/bin/env bash
# Library: cuBLASLt 13.1.0.3 through nvmath-python 1.0.0 and cuda-bindings 13.3.1, on one NVIDIA H200 (driver 580), seen
# 2026-11-29. Needs an NVIDIA GPU from sm_89.
#
# Expected: the scale of an FP8 operand is one float32 on the device, so an element of an array of scales, 4 bytes after the
# one before, is a place like any other. The heuristics are asked with the scales' addresses set, and name 8 algorithms.
# Happens: none of the algorithms runs unless the address is a multiple of 16: CUBLAS_STATUS_NOT_SUPPORTED, which names no
# address. With one scale for all, at the beginning of an allocation, everything passes.
#
# Seen:
#   0 bytes: all of the named algorithms ran 64
#   4 bytes: 0 of the named algorithms ran the requested functionality is not supported (CUBLAS_STATUS_NOT_SUPPORTED). ...
#   16 bytes: all of the named algorithms ran 64
#
# Here because of it: KernelDevice.constant lays each scale 16 bytes after the one before (runtime/operators/cuda/device.py).
set -euo pipefail
if ! command -v nvidia-smi > /dev/null; then
    echo "no NVIDIA GPU"
    exit 77
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$folder/site" "nvmath-python[cu13]==1.0.0"
cat > "$folder/ask.py" <<'PYTHON'
import ctypes

import numpy as np
from cuda.bindings import runtime as cuda
from nvmath import CudaDataType
from nvmath.bindings import cublasLt as lt

SIZE, WORKSPACE, COMPUTE_32F = 256, 32 << 20, 68


def done(answer):
    error, *values = answer
    assert error == 0, error
    return values[0] if values else None


def put(values):
    address = done(cuda.cudaMalloc(values.nbytes))
    done(cuda.cudaMemcpy(address, values.ctypes.data, values.nbytes, cuda.cudaMemcpyKind.cudaMemcpyHostToDevice))
    return address


def attribute(descriptor, name, value):
    number = int(getattr(lt.MatmulDescAttribute, name))
    lt.matmul_desc_set_attribute(descriptor, number, ctypes.addressof(value), ctypes.sizeof(value))


handle = lt.create()
codes = put(np.full((SIZE, SIZE), 0x38, np.uint8))  # 1.0 in E4M3
result = done(cuda.cudaMalloc(2 * SIZE * SIZE))
workspace = done(cuda.cudaMalloc(WORKSPACE))
scales = put(np.full(16, 0.5, np.float32))
one, zero = ctypes.c_float(1), ctypes.c_float(0)


def multiply(offset):
    """Say how many of the named algorithms multiply with the scale so many bytes into the array, and what comes out."""
    descriptor = lt.matmul_desc_create(COMPUTE_32F, int(CudaDataType.CUDA_R_32F))
    attribute(descriptor, "TRANSA", ctypes.c_int32(1))
    for side in "AB":
        attribute(descriptor, f"{side}_SCALE_POINTER", ctypes.c_void_p(scales + offset))
    fp8, bf16 = (lt.matrix_layout_create(int(kind), SIZE, SIZE, SIZE) for kind in (CudaDataType.CUDA_R_8F_E4M3, CudaDataType.CUDA_R_16BF))
    preference, found = lt.matmul_preference_create(), np.zeros(1, np.int32)
    limit = ctypes.c_uint64(WORKSPACE)
    lt.matmul_preference_set_attribute(
        preference, int(lt.MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES), ctypes.addressof(limit), 8
    )
    named = np.zeros(8, dtype=lt.matmul_heuristic_result_dtype)
    lt.matmul_algo_get_heuristic(
        handle, descriptor, fp8, fp8, bf16, bf16, preference, 8, named.ctypes.data, found.ctypes.data
    )
    ran, reasons = 0, set()
    for index in range(int(found[0])):
        algorithm = named.ctypes.data + index * named.dtype.itemsize
        try:
            lt.matmul(
                handle, descriptor, ctypes.addressof(one), codes, fp8, codes, fp8, ctypes.addressof(zero), result, bf16,
                result, bf16, algorithm, workspace, WORKSPACE, 0,
            )
            ran += 1
        except lt.cuBLASLtError as error:
            reasons.add(str(error).strip().splitlines()[0])
    done(cuda.cudaDeviceSynchronize())
    first = np.zeros(1, np.uint16)
    done(cuda.cudaMemcpy(first.ctypes.data, result, 2, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost))
    value = (first.astype(np.uint32) << 16).view(np.float32)[0]
    print(f"{offset} bytes: {'all' if ran == found[0] else ran} of the named algorithms ran", *sorted(reasons),
          *([f"{value:g}"] if ran else []))


for offset in (0, 4, 8, 16, 20, 32):
    multiply(offset)
PYTHON
PYTHONPATH="$folder/site${PYTHONPATH:+:$PYTHONPATH}" python3 "$folder/ask.py" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
0 bytes: all of the named algorithms ran 64
4 bytes: 0 of the named algorithms ran the requested functionality is not supported (CUBLAS_STATUS_NOT_SUPPORTED). You can set CUBLASLT_LOG_LEVEL=5 environment variable to enable cuBLAS logging to learn more.
8 bytes: 0 of the named algorithms ran the requested functionality is not supported (CUBLAS_STATUS_NOT_SUPPORTED). You can set CUBLASLT_LOG_LEVEL=5 environment variable to enable cuBLAS logging to learn more.
16 bytes: all of the named algorithms ran 64
20 bytes: 0 of the named algorithms ran the requested functionality is not supported (CUBLAS_STATUS_NOT_SUPPORTED). You can set CUBLASLT_LOG_LEVEL=5 environment variable to enable cuBLAS logging to learn more.
32 bytes: all of the named algorithms ran 64
TEXT
diff "$folder/expected" "$folder/seen" || { echo "cuBLASLt does otherwise now" >&2; exit 1; }
