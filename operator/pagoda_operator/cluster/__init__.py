"""What the operator knows of a cluster: an interface, its errors, and two implementations that keep the same promises.

`kubernetes` speaks to an API server; `memory` is the whole cluster of `pagoda local up`. Nothing here decides anything.
"""
