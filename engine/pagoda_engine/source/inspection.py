"""`facts`: what planning needs to know of a model, from its headers alone.

A model on the hub costs a listing, config.json and the first bytes of each weight file; one in a wheel costs the
archive's directory and as much of the member as its header takes. Only a package index without HTTP ranges makes the
whole wheel come down, into a temporary file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Final

from pagoda_engine.contract import ModelFacts
from pagoda_engine.errors import FetchFailed, ModelNotFound
from pagoda_engine.source import gguf, safetensors
from pagoda_engine.source.access import Access
from pagoda_engine.source.blob import Blob, download_blob
from pagoda_engine.source.cache import local_model
from pagoda_engine.source.config_facts import config_facts
from pagoda_engine.source.gguf_facts import gguf_facts
from pagoda_engine.source.meter import Meter, ignore
from pagoda_engine.source.package_index import find_wheel
from pagoda_engine.source.remote_file import open_remote
from pagoda_engine.source.selection import CONFIG, INDEX, select
from pagoda_engine.source.uri import HfUri, PypiUri, is_uri, parse
from pagoda_engine.source.web import Web
from pagoda_engine.source.wheel import open_wheel

_CONNECTIONS: Final = 8


def facts(model: str, access: Access | None = None) -> ModelFacts:
    """Facts of a URI, a model folder or a .gguf file.

    Raises ModelNotFound, ModelCorrupt, ModelUnsupported, AccessDenied or FetchFailed.
    """
    if not is_uri(model):
        return _local(model)
    try:
        uri = parse(model)
    except ValueError as error:
        raise ModelNotFound(str(error)) from None
    if isinstance(uri, HfUri):
        return _hub(uri, access or Access())
    return _wheel(uri, access or Access())


def _local(model: str) -> ModelFacts:
    path = local_model(model)
    if path.is_file():
        size = path.stat().st_size
        with path.open("rb") as file:
            return gguf_facts(model, gguf.read_header(file, size), size)
    sizes = {child.name: child.stat().st_size for child in path.iterdir() if child.is_file()}
    selection = select(model, sizes, index=(path / INDEX).read_bytes() if INDEX in sizes else None)
    if selection.model:
        return _local(str(path / selection.model))
    tensors: list[safetensors.Tensor] = []
    for name in selection.weights:
        with (path / name).open("rb") as file:
            tensors += safetensors.read_header(file, str(path / name), sizes[name])
    size = sum(sizes[name] for name in selection.files)
    return config_facts(model, (path / CONFIG).read_bytes(), tensors, size)


def _hub(uri: HfUri, access: Access) -> ModelFacts:
    from pagoda_engine.source.hub import Repository  # huggingface_hub takes a while to import

    repository = Repository.open(access, uri)
    with repository.web as web:
        selection = repository.selection()
        size = sum(repository.blobs[name].size or 0 for name in selection.files)
        weights = [repository.blobs[name] for name in selection.weights]
        if selection.model:
            with _ranged(web, weights[0]) as file:
                return gguf_facts(str(uri), gguf.read_header(file, weights[0].size), size)
        with ThreadPoolExecutor(_CONNECTIONS, "inspect") as pool:
            headers: Sequence[tuple[safetensors.Tensor, ...]] = list(pool.map(lambda blob: _header(web, blob), weights))
        return config_facts(str(uri), repository.read(CONFIG), [t for header in headers for t in header], size)


def _header(web: Web, blob: Blob) -> tuple[safetensors.Tensor, ...]:
    with _ranged(web, blob) as file:
        return safetensors.read_header(file, blob.name, blob.size or 0)


def _ranged(web: Web, blob: Blob) -> IO[bytes]:
    file = open_remote(web, blob.url)
    if file is None:
        raise FetchFailed(f"{blob.url} can't be read in ranges, as every hub allows; check HF_ENDPOINT and the proxy")
    return file


def _wheel(uri: PypiUri, access: Access) -> ModelFacts:
    with Web(access.patience) as web, tempfile.TemporaryDirectory(prefix="pagoda-inspect-") as folder:
        wheel = find_wheel(web, uri, access.index)
        file: IO[bytes] | None = open_remote(web, wheel.url)
        if file is None:
            path = Path(folder, "wheel")
            blob = Blob(wheel.url, wheel.name, None, sha256=wheel.sha256)
            download_blob(web, blob, path, Path(folder), Meter(None, ignore))
            file = path.open("rb")
        size = file.seek(0, 2)
        with open_wheel(file, uri) as (member, length):
            # While a cache is filled it holds the wheel and the member side by side.
            return gguf_facts(str(uri), gguf.read_header(member, length), size + length)
