"""What pods are told of names."""

from __future__ import annotations

import struct

import pytest
from e2e.dns import NAME_ERROR, addresses, answer

SLICES = [
    {
        "metadata": {
            "name": f"scaler-{number}",
            "namespace": "system",
            "labels": {"kubernetes.io/service-name": "scaler"},
        },
        "endpoints": [{"addresses": [f"10.0.0.{number}"], "conditions": {"ready": ready}}],
    }
    for number, ready in ((2, True), (1, True), (3, False))
]
A, AAAA = 1, 28


def query(name: str, kind: int = A) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", 4711, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("scaler.system.svc.cluster.local", ["10.0.0.1", "10.0.0.2"]),
        ("Scaler.System.svc.cluster.local.", ["10.0.0.1", "10.0.0.2"]),
        ("scaler.other.svc.cluster.local", None),
        ("scaler.system.keda.svc.cluster.local", None),
        ("scaler.system", None),
        ("pypi.org", None),
    ],
)
def test_a_service_is_its_ready_endpoints(name: str, found: list[str] | None) -> None:
    """Whole names only, as a resolver makes them of the search list; nothing outside of the cluster has a name."""
    assert addresses(SLICES, name) == found


def test_an_answer_repeats_number_and_question_and_holds_each_address() -> None:
    asked = query("scaler.system.svc.cluster.local")
    told = answer(asked, SLICES)
    number, flags, questions, answers, *_ = struct.unpack_from("!6H", told)
    assert (number, flags & 0x8000, flags & 0xF, questions, answers) == (4711, 0x8000, 0, 1, 2)
    assert told[12 : len(asked)] == asked[12:]
    assert [told[-4:], told[-20:-16]] == [bytes([10, 0, 0, 2]), bytes([10, 0, 0, 1])]


@pytest.mark.parametrize(
    ("asked", "code"),
    [(query("nobody.system.svc.cluster.local"), NAME_ERROR), (query("scaler.system.svc.cluster.local", AAAA), 0)],
)
def test_no_address_is_no_such_name_or_another_kind(asked: bytes, code: int) -> None:
    """A name with addresses of another kind exists: an error would end the search for the right kind too."""
    _, flags, _, answers, *_ = struct.unpack_from("!6H", answer(asked, SLICES))
    assert (flags & 0xF, answers) == (code, 0)


@pytest.mark.parametrize("noise", [b"", b"\0" * 12, query("a.b")[:-1], answer(query("a.b"), SLICES)])
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(ValueError, match="not a DNS query"):
        answer(noise, SLICES)
