"""Kernels for processors, in Numba: machine code for the CPU at hand, cached, without a compiler on the user's machine.

A step of the model is one function, `step.forward`, that all threads of a `team` run together: they take pieces of
each phase from a counter and meet at a barrier before the next. `lanes` and `tiles` emit the vector code.

bfloat16 is held as uint16, and the scalars of an array are called elements whatever their type. Rows of activations
are contiguous; weights lie in panels of sixteen outputs, `weights.pack` says how. Nothing here allocates.
"""
