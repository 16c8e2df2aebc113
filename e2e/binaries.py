"""The programs that the harness runs, built once from pinned Go modules into the user's cache folder.

Each folder of `tools/` is a Go module whose `tool` directives name the programs and whose `go.sum` pins every byte of
their sources. A build goes to `<cache>/pagoda/tools/<folder>-<hash>/`, where the hash is of all that decides it, so a
changed pin is a new folder and an old checkout finds its own. The folder appears by a rename: whole or not at all.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TOOLS = Path(__file__).parent / "tools"
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
ETCD_NAMES = ("etcd", "server")
"""Etcd's binary is called after its package's folder where Go built it, `etcd` in KUBEBUILDER_ASSETS."""
HEARTBEAT_SECONDS = 15.0


class Missing(Exception):
    """Something that the harness needs is not on this machine and can't be had; says what to do."""


@dataclass(frozen=True, slots=True)
class Keda:
    operator: Path
    adapter: Path
    crds: Path
    """The folder with its CustomResourceDefinitions, one YAML file each; its other manifests are beside."""


@dataclass(frozen=True, slots=True)
class Binaries:
    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kube_scheduler: Path
    kubectl: Path
    helm: Path
    keda: Keda


def find(say: Callable[[str], None]) -> Binaries:
    """All programs, building what is not there yet; `say` gets a line of progress now and then. Raises Missing."""
    folder = _assets() or build("kubernetes", say)
    etcd = next(folder / name for name in ETCD_NAMES if (folder / name).exists())
    keda = build("keda", say)
    return Binaries(
        etcd,
        *(folder / name for name in CONTROL_PLANE),
        helm=build("helm", say) / "helm",
        keda=Keda(keda / "operator", keda / "adapter", _keda_crds(say)),
    )


def _assets() -> Path | None:
    """The folder of KUBEBUILDER_ASSETS. Raises Missing where it lacks a program (setup-envtest brings but three)."""
    if not (value := os.environ.get("KUBEBUILDER_ASSETS")):
        return None
    folder = Path(value)
    lacking = [name for name in CONTROL_PLANE if not (folder / name).exists()]
    if not any((folder / name).exists() for name in ETCD_NAMES):
        lacking.append("etcd")
    if lacking:
        raise Missing(f"KUBEBUILDER_ASSETS={folder} lacks {', '.join(lacking)}; add them, or unset it to build them")
    return folder


def cache_folder() -> Path:
    """Where built tools and fetched files are kept between runs."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "pagoda" / "tools"


def build(name: str, say: Callable[[str], None]) -> Path:
    """The folder with the programs of `tools/<name>`, built if need be. Raises Missing with the compiler's words."""
    module = TOOLS / name
    flags = f"-s -w{_version_flags(module)}"
    digest = hashlib.sha256(b"\0".join([(module / file).read_bytes() for file in ("go.mod", "go.sum")]))
    digest.update(flags.encode())
    target = cache_folder() / f"{name}-{digest.hexdigest()[:12]}"
    if target.exists():
        return target
    go = _go()
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target.parent / f"{name}.lock", say):
        if target.exists():
            return target
        fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{name}-"))
        try:
            say(f"building {name} from its pinned modules into {target} (minutes, once)")
            _run([go, "build", "-trimpath", "-ldflags", flags, "-o", f"{fresh}{os.sep}", "tool"], module, say)
            fresh.chmod(0o755)
            fresh.rename(target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return target


def sources(name: str, module: str, say: Callable[[str], None]) -> Path:
    """The folder of a module's sources, as `tools/<name>` pins it. Raises Missing."""
    out = _run([_go(), "mod", "download", "-json", module], TOOLS / name, say)
    return Path(json.loads(out)["Dir"])


def _keda_crds(say: Callable[[str], None]) -> Path:
    return sources("keda", "github.com/kedacore/keda/v2", say) / "config" / "crd" / "bases"


def _version_flags(module: Path) -> str:
    """Linker flags that stamp Kubernetes' version, without which clients refuse the server's empty one."""
    requirement = r"^\tk8s\.io/kubernetes v(?P<all>(?P<major>\d+)\.(?P<minor>\d+)\.\S+)"
    if (match := re.search(requirement, (module / "go.mod").read_text(), re.MULTILINE)) is None:
        return ""
    package = "k8s.io/component-base/version"
    stamps = {"gitVersion": f"v{match['all']}", "gitMajor": match["major"], "gitMinor": match["minor"]}
    return "".join(f" -X {package}.{key}={value}" for key, value in stamps.items())


def _go() -> str:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if go is None:
        raise Missing("the `go` command is not on PATH; the control plane is built with Go >= 1.26 (https://go.dev/dl)")
    return go


def _run(command: list[str], folder: Path, say: Callable[[str], None]) -> str:
    environment = {**os.environ, "GOWORK": "off", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    start = time.monotonic()
    with (
        tempfile.TemporaryFile("w+") as errors,
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=errors) as process,
    ):
        while True:
            try:
                code = process.wait(HEARTBEAT_SECONDS)
                break
            except subprocess.TimeoutExpired:
                say(f"  … {time.monotonic() - start:.0f} s")
            except BaseException:
                process.kill()
                raise
        errors.seek(0)
        output.seek(0)
        if code != 0:
            # Go says the same of each of a hundred modules.
            tail = "\n".join(list(dict.fromkeys(errors.read().splitlines()))[-20:])
            raise Missing(f"`{' '.join(command)}` in {folder} ended with {code}:\n{tail}")
        return output.read()


@contextmanager
def _lock(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """One builder at a time; the others wait and then find its result."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another build ({path})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
