"""Kernels for NVIDIA GPUs, in Triton. Each has a twin in plain torch; `TRITON_INTERPRET=1` runs them on a CPU.

Nothing is compiled once an engine is ready. Therefore sizes that differ from step to step are arguments that Triton
must not specialise on (`do_not_specialize`), only grids depend on them, and there is no autotuning: `chip` derives the
tiles. Whatever depends on data (lengths, block tables) is read on the device, so that a CUDA graph stays valid.

Offsets into a cache are 64 bits wide, since one layer's may exceed 2^31 elements. What others left in the cache may be
NaN, which even a probability of zero would let through: no load touches what the sequence did not write.
"""
