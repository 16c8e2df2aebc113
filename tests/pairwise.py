"""Few cases of a large grid such that any two values of different parameters meet in one of them."""

from itertools import combinations, product
from typing import Any


def pairwise(**values: list[Any]) -> list[dict[str, Any]]:
    """Cases, each a value for every parameter; greedy, so near the fewest, and the same at each call."""
    names = list(values)
    cases = [dict(zip(names, case, strict=True)) for case in product(*(range(len(values[name])) for name in names))]
    pairs = {id(case): {(a, case[a], b, case[b]) for a, b in combinations(names, 2)} for case in cases}
    missing = set().union(*pairs.values())
    chosen = []
    while missing:
        best = max(cases, key=lambda case: len(pairs[id(case)] & missing))
        missing -= pairs[id(best)]
        chosen.append({name: values[name][index] for name, index in best.items()})
    return chosen
