"""Takes `gigabytes` of a GPU's memory by the driver alone, without any library of CUDA's, and works on."""

import ctypes

from tests.misbehaving import behaves


def run(stage):
    cuda = ctypes.CDLL("libcuda.so.1")
    context, memory, device = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int()
    _check(cuda.cuInit(0))
    _check(cuda.cuDeviceGet(ctypes.byref(device), 0))
    _check(cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device))
    size = ctypes.c_size_t(stage.config["gigabytes"] * 1024**3)
    _check(cuda.cuMemAlloc_v2(ctypes.byref(memory), size))
    _check(cuda.cuMemsetD8_v2(memory, 1, size))
    behaves.wait(stage)


def _check(status):
    if status:
        raise RuntimeError(f"CUDA error {status}")
