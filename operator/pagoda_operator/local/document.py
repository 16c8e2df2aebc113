"""The YAML file of `pagoda local up`: one InferenceService, and the Secrets that it names."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pagoda_operator.api.names import KIND, Object
from pagoda_operator.api.validation import validate

NAMESPACE = "default"


class DocumentError(Exception):
    """The file can't be used; the message names what is wrong, and where."""


@dataclass(frozen=True, slots=True)
class Document:
    service: Object
    secrets: tuple[Object, ...]


def read_document(path: Path) -> Document:
    """Read a file. Raises DocumentError."""
    objects = _objects(path)
    services = [obj for obj in objects if obj.get("kind") == KIND]
    secrets = [obj for obj in objects if obj.get("kind") == "Secret"]
    strangers = [obj.get("kind") for obj in objects if obj.get("kind") not in (KIND, "Secret")]
    if strangers:
        raise DocumentError(f"{path} holds a {strangers[0]}; without a cluster it may hold {KIND} and Secret only")
    if len(services) != 1:
        raise DocumentError(f"{path} holds {len(services)} {KIND}s; it must hold one, see examples/smollm2.yaml")
    if problems := validate(services[0]):
        raise DocumentError("\n".join(f"{path}: {problem}" for problem in problems))
    return Document(_placed(services[0]), tuple(_encoded(_placed(secret)) for secret in secrets))


def _objects(path: Path) -> list[Any]:
    try:
        objects = [obj for obj in yaml.safe_load_all(path.read_text()) if obj is not None]
    except OSError as error:
        raise DocumentError(f"{path} can't be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DocumentError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    for obj in objects:
        if not isinstance(obj, dict):
            raise DocumentError(f"{path} holds a {type(obj).__name__}; it must hold Kubernetes objects")
        if not isinstance(obj.get("metadata"), dict) or not obj["metadata"].get("name"):
            raise DocumentError(f"{path}: {obj.get('kind', 'an object')} has no metadata.name; give it one")
    return objects


def _placed(obj: Object) -> Object:
    return {**obj, "metadata": {"namespace": NAMESPACE, **obj["metadata"]}}


def _encoded(secret: Object) -> Object:
    """With `stringData` folded into `data`, as the API server does."""
    plain = {key: base64.b64encode(str(value).encode()).decode() for key, value in secret.pop("stringData", {}).items()}
    return {**secret, "data": {**secret.get("data", {}), **plain}}
