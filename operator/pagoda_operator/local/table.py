"""Objects as the table that `kubectl get` prints, from the CRD's printer columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pagoda_operator.api.names import Object

Column = tuple[str, str, str]
"""Title, type and JSON path, as in `api.crd.COLUMNS`."""

MIN_WIDTH, PADDING = 6, 3
"""Of kubectl's tab writer (k8s.io/cli-runtime/pkg/printers/tabwriter.go)."""

_STEP = re.compile(r"""\.(?P<name>[\w-]+)|\[\?\(@\.(?P<key>[\w-]+)==["'](?P<value>[^"']*)["']\)\]""")


def table(objects: Sequence[Object], columns: Sequence[Column], now: datetime) -> str:
    """The table with its headers, a line an object, ending in a newline."""
    rows = [["NAME", *(title for title, _, _ in columns)]]
    rows += [_row(obj, columns, now) for obj in objects]
    widths = [max(MIN_WIDTH, max(map(len, cells)) + PADDING) for cells in zip(*rows, strict=True)]
    # The last cell of a line ends it, so nothing pads it.
    lines = ["".join(c.ljust(w) for c, w in zip(row[:-1], widths, strict=False)) + row[-1] for row in rows]
    return "".join(f"{line}\n" for line in lines)


def values_at(obj: Any, path: str) -> list[Any]:
    """What a JSON path (names, and filters `[?(@.type=="Ready")]`) leads to; nothing where the way ends.

    Raises ValueError for a path in another notation.
    """
    found, end = [obj], 0
    for step in _STEP.finditer(path):
        if step.start() != end:
            break
        end = step.end()
        if step["name"] is not None:
            found = [value[step["name"]] for value in found if isinstance(value, dict) and step["name"] in value]
        else:
            items = [item for value in found if isinstance(value, list) for item in value]
            found = [item for item in items if isinstance(item, dict) and str(item.get(step["key"])) == step["value"]]
    if end != len(path):
        raise ValueError(f"JSON path {path!r} can't be read from {path[end:]!r} on")
    return found


def human_duration(seconds: float) -> str:
    """An age as kubectl words it (k8s.io/apimachinery/pkg/util/duration, HumanDuration)."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 120:
        return f"{max(0, whole)}s"
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 2 * 365:
        return f"{days}d"
    if days < 8 * 365:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def _row(obj: Object, columns: Sequence[Column], now: datetime) -> list[str]:
    return [obj["metadata"]["name"], *(_cell(obj, type_, path, now) for _, type_, path in columns)]


def _cell(obj: Object, type_: str, path: str, now: datetime) -> str:
    values = values_at(obj, path)
    if type_ == "date":
        return human_duration((now - datetime.fromisoformat(values[0])).total_seconds()) if values else "<unknown>"
    text = ",".join(_text(value) for value in values)
    first, *rest = re.split(r"[\f\n\r]", text, maxsplit=1)
    return f"{first}..." if rest else first


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
