"""The engine's own kernels, each beside a plain torch twin that is its oracle.

`plain` holds the twins, which compute on every device; `cpu` the kernels for processors, in Numba.
"""
