"""The messages of KEDA's external scaler protocol (pkg/scalers/externalscaler/externalscaler.proto in kedacore/keda).

They are described here instead of generated: generated code refuses every protobuf that is older than the compiler
which wrote it, and six small messages are quicker read as a table. Deprecated fields are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE: Final = "externalscaler"
SERVICE: Final = f"{PACKAGE}.ExternalScaler"

_SCALARS: Final = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
}
_MESSAGES: Final[Mapping[str, Mapping[str, tuple[int, str]]]] = {
    "ScaledObjectRef": {
        "name": (1, "string"),
        "namespace": (2, "string"),
        "scalerMetadata": (3, "repeated MetadataEntry"),
    },
    # A map is a repeated message of a key and a value, as the encoding's page says of maps.
    "MetadataEntry": {"key": (1, "string"), "value": (2, "string")},
    "IsActiveResponse": {"result": (1, "bool")},
    "GetMetricSpecResponse": {"metricSpecs": (1, "repeated MetricSpec")},
    "MetricSpec": {"metricName": (1, "string"), "targetSizeFloat": (3, "double")},
    "GetMetricsRequest": {"scaledObjectRef": (1, "ScaledObjectRef"), "metricName": (2, "string")},
    "GetMetricsResponse": {"metricValues": (1, "repeated MetricValue")},
    "MetricValue": {"metricName": (1, "string"), "metricValueFloat": (3, "double")},
}
"""Message -> field -> number and type."""


def _message(name: str, fields: Mapping[str, tuple[int, str]]) -> DescriptorProto:
    descriptor = DescriptorProto(name=name)
    for field, (number, words) in fields.items():
        repeated, _, kind = words.rpartition(" ")
        one = descriptor.field.add(name=field, number=number)
        one.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
        if kind in _SCALARS:
            one.type = _SCALARS[kind]
        else:
            one.type, one.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    return descriptor


def _classes() -> dict[str, Any]:
    file = FileDescriptorProto(name="externalscaler.proto", package=PACKAGE, syntax="proto3")
    file.message_type.extend(_message(name, fields) for name, fields in _MESSAGES.items())
    # A pool of its own: who has KEDA's generated code loaded as well meets no second definition.
    pool = DescriptorPool()
    pool.Add(file)
    found = pool.FindFileByName(file.name).message_types_by_name
    return {name: GetMessageClass(descriptor) for name, descriptor in found.items()}


CLASSES: Final = _classes()
ScaledObjectRef: Final = CLASSES["ScaledObjectRef"]
"""Which ScaledObject, and the metadata of the trigger that asks."""
