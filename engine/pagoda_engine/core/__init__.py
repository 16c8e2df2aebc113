"""The engine's core: what is computed next, and in which blocks of the cache. Standard library only, never torch.

`request` is the one mutable thing, `blocks` the paged cache's book-keeping, `scheduler` the policy, `engine` the step
that ties them to a runner. Everything here is simulated in tests by the hour, without a model.
"""
