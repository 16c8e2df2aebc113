"""Decoders of the common shape on NVIDIA GPUs: fused weights, Triton's kernels, and CUDA graphs for decoding.

`weights` fuses what `fused.recognise` found, `decoder` is the forward pass, `inputs` and `tables` carry a step's works
to the device, `execution` says how a step is run and its tokens are read back (by CUDA graphs, or plainly), and
`runner` puts them together. On the CPU the same runner runs in Triton's interpreter: slow, and what the tests compare.
"""
