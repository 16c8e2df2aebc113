"""Waiting requests that replicas on their way will take: no reason to ask for still more replicas.

A scaler divides the requests that wait by a target. While new replicas load, which takes minutes, requests pile up, and
each look would ask for more. So what is told to it counts a loading replica as the capacity that it will be.
"""

from __future__ import annotations


def pressing(waiting: int, *, target: int, replicas: int, loading: int, slots: int) -> int:
    """The waiting requests that speak for more replicas.

    `target` are waiting requests per replica at which a scaler adds one, `slots` the requests that one replica runs at
    once. It stops an increase and never brings about a decrease: a number that asks for no more than the `replicas`
    which are asked for already is told as it is, and any other stays at or above theirs.
    """
    return max(min(waiting, replicas * target), waiting - loading * slots)
