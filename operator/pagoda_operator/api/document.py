"""The base of every model in this package: camelCase on the wire, nothing unknown, nothing changed after reading."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Document(BaseModel):
    """A part of an InferenceService. Field descriptions become the CRD's."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, extra="forbid", frozen=True
    )
