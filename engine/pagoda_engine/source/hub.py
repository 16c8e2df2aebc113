"""Models in repositories of a Hugging Face hub: `hf://org/repo`.

huggingface_hub says where the hub is (HF_ENDPOINT), who asks (HF_TOKEN, its token file) and how its URLs look. The
bytes are fetched by `web`: huggingface_hub starts a cut download again from the first byte and compares sizes only,
and a pod that was moved in the middle of 140 GB wants the rest of them, checked by hash.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
from huggingface_hub import constants, get_token, hf_hub_url

from pagoda_engine.errors import AccessDenied, FetchFailed, ModelCorrupt, ModelNotFound, PagodaError
from pagoda_engine.source import gguf
from pagoda_engine.source.access import Access
from pagoda_engine.source.blob import Blob, download_blob, read_blob
from pagoda_engine.source.cache import Manifest, Slot, disk_errors, require_space
from pagoda_engine.source.meter import Meter, OnProgress
from pagoda_engine.source.selection import INDEX, Selection, select
from pagoda_engine.source.uri import HfUri
from pagoda_engine.source.web import Web, redact, refusal

_CONNECTIONS: Final = 4


class Repository:
    """One revision of a repository, pinned to the commit that it had when this object was made."""

    def __init__(self, web: Web, uri: HfUri, commit: str, blobs: Mapping[str, Blob]) -> None:
        self.web = web
        self.uri = uri
        self.commit = commit
        self.blobs = blobs

    @classmethod
    def open(cls, access: Access, uri: HfUri) -> Repository:
        """Look a repository up. Raises AccessDenied, ModelNotFound or FetchFailed, each with the fix."""
        if constants.HF_HUB_OFFLINE:
            raise FetchFailed(f"HF_HUB_OFFLINE is set, so {uri} can't be fetched; unset it")
        hub = (access.hub or constants.ENDPOINT).rstrip("/")
        token = access.token or get_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        web = Web(access.patience, headers, lambda response: _refusal(response, hub, uri, bool(token)))
        url = f"{hub}/api/models/{uri.repo}/revision/{quote(uri.revision, safe='')}?blobs=true"
        try:
            document = json.loads(web.get(url, accept="application/json").body)
            commit = str(document["sha"])
            blobs = [_blob(hub, uri.repo, commit, file) for file in document["siblings"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FetchFailed(f"{redact(url)} is no hub's answer ({error!r}); check HF_ENDPOINT") from error
        return cls(web, uri, commit, {blob.name: blob for blob in blobs})

    def read(self, name: str) -> bytes:
        """A small file's bytes."""
        return read_blob(self.web, self.blobs[name])

    def selection(self) -> Selection:
        """The files that the engine needs of this repository."""
        sizes = {name: blob.size or 0 for name, blob in self.blobs.items()}
        index = self.read(INDEX) if INDEX in sizes and not self.uri.file else None
        return select(str(self.uri), sizes, self.uri.file, index)


def fetch_repository(access: Access, uri: HfUri, slot: Slot, on_progress: OnProgress) -> Path:
    """Fetch what the engine needs of a repository, check it, and publish it. The caller holds the slot's lock."""
    repository = Repository.open(access, uri)
    with repository.web:
        selection = repository.selection()
        ready = slot.partial / repository.commit
        with disk_errors(slot.root):
            ready.mkdir(parents=True, exist_ok=True)
            for other in slot.partial.iterdir():
                if other != ready:
                    shutil.rmtree(other)  # what a pull of an earlier commit left
        blobs = [repository.blobs[name] for name in selection.files]
        _download_all(repository.web, blobs, ready, slot.root, on_progress)
    if selection.model:
        with (ready / selection.model).open("rb") as file:
            gguf.read_header(file, (ready / selection.model).stat().st_size)
    files = {name: (ready / name).stat().st_size for name in (Path(blob.name).name for blob in blobs)}
    return slot.publish(ready, Manifest(str(uri), repository.commit, selection.model, files))


def _download_all(web: Web, blobs: Sequence[Blob], ready: Path, root: Path, on_progress: OnProgress) -> None:
    """Fetch blobs into a folder, several at once, the largest first. A file has its own name once it was checked."""
    targets = {blob: ready / Path(blob.name).name for blob in blobs}
    missing = sorted((blob for blob in blobs if not targets[blob].exists()), key=lambda blob: -(blob.size or 0))
    parts = {blob: targets[blob].with_name(targets[blob].name + ".part") for blob in missing}
    total = sum(blob.size or 0 for blob in blobs)
    done = sum(target.stat().st_size for target in targets.values() if target.exists())
    begun = sum(part.stat().st_size for part in parts.values() if part.exists())
    require_space(root, total - done - begun, "the model")
    stop = threading.Event()
    meter = _StoppableMeter(total, on_progress, stop)
    if done:
        meter.have(done)

    def download(blob: Blob) -> None:
        download_blob(web, blob, parts[blob], root, meter)
        with disk_errors(root):
            parts[blob].rename(targets[blob])

    with ThreadPoolExecutor(_CONNECTIONS, "pull") as pool:
        try:
            for future in as_completed([pool.submit(download, blob) for blob in missing]):
                future.result()
        except BaseException:
            stop.set()  # the first failure tells; the others would only keep the user waiting for it
            pool.shutdown(cancel_futures=True)
            raise


class _Stopped(Exception):
    """Ends a thread's download because another one's failed."""


class _StoppableMeter(Meter):
    def __init__(self, total: int, on_progress: OnProgress, stop: threading.Event) -> None:
        super().__init__(total, on_progress)
        self._stop = stop

    def add(self, count: int) -> None:
        if self._stop.is_set():
            raise _Stopped
        super().add(count)


def _blob(hub: str, repo: str, commit: str, file: Mapping[str, Any]) -> Blob:
    """A file as `?blobs=true` lists it: large ones with their SHA-256, all with the name that git gives them."""
    name, lfs = str(file["rfilename"]), file.get("lfs") or {}
    return Blob(
        url=hf_hub_url(repo, name, revision=commit, endpoint=hub),
        name=name,
        size=int(lfs["size"] if "size" in lfs else file["size"]),
        sha256=str(lfs.get("sha256", "")),
        git_sha1=str(file["blobId"]),
    )


def _refusal(response: httpx.Response, hub: str, uri: HfUri, has_token: bool) -> PagodaError:
    """The hub's refusals, told apart by its own error codes (huggingface_hub's `hf_raise_for_status`)."""
    code = response.headers.get("X-Error-Code", "")
    page = f"{hub}/{uri.repo}"
    if code == "GatedRepo":
        step = "with the account of HF_TOKEN" if has_token else "and set HF_TOKEN (spec.model.tokenSecret)"
        return AccessDenied(f"{uri} is gated; accept its terms at {page} {step}")
    if code == "RevisionNotFound":
        return ModelNotFound(f"{uri.repo} has no revision {uri.revision!r}; see {page}/tree/main")
    if code == "EntryNotFound":
        return ModelCorrupt(f"{uri} lists a file that it does not have: {redact(str(response.url))}")
    if response.status_code in (401, 403):
        if has_token:
            return AccessDenied(f"the hub refused HF_TOKEN for {uri}; renew it, or give it read access to {page}")
        # Without a token a hub answers 401 for what is private and for what does not exist alike.
        return AccessDenied(f"{uri} does not exist or is private; check {page}, or set HF_TOKEN")
    if response.status_code == 404:
        return ModelNotFound(f"there is no repository {uri.repo!r} at {hub}; check {page}")
    return refusal(response)
