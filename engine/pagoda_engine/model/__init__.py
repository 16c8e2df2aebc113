"""The model half of the engine: load a checkpoint, compute a batch of works over the paged cache, choose tokens.

`build` makes an `EngineCore`; `loader` and `checkpoint` read weights through transformers; `attention` is the seam that
transformers' layers call and kernels stand behind (`torch_attention` is the exact one); `runner` turns works into one
forward pass; `sampler` turns logits into tokens; `device` knows what the machine has.
"""
