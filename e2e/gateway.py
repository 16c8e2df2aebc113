"""The part of a gateway that wakes a service: it holds a request for one without replicas, and tells the operator."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from e2e.release import PORT, Release

REPEAT_SECONDS = 5.0
"""The operator takes its word for 30 s."""


@contextmanager
def holding(release: Release, namespace: str, name: str, requests: int = 1) -> Iterator[None]:
    """Tell every operator of held requests, again and again, until the context is left; then that none are.

    Those on their way out are no longer behind their Service. Raises HTTPError where an operator refuses.
    """
    pods = [pod for pod in release.pods() if "deletionTimestamp" not in pod["metadata"]]
    urls = [f"http://{pod['status']['podIP']}:{PORT}/activate/{namespace}/{name}" for pod in pods]
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(REPEAT_SECONDS):
            _tell(urls, requests)

    _tell(urls, requests)
    thread = threading.Thread(target=repeat, name="gateway", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _tell(urls, 0)


def _tell(urls: list[str], requests: int) -> None:
    for url in urls:
        body = json.dumps({"requests": requests}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()
