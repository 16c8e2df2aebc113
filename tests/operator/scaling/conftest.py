"""An API server's front proxy, as certificates go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pagoda_operator.scaling.certificates import Authorities


class ClientAuthority:
    """An authority that signs clients."""

    def __init__(self) -> None:
        self._authority = Authorities().renewed(datetime.now(UTC))

    @property
    def pem(self) -> str:
        return self._authority.bundle.decode()

    def sign(self, name: str) -> bytes:
        """Key and certificate, PEM, of a client of that common name."""
        key, now, signer = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC), self._authority.members[0]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(signer.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(signer.key, hashes.SHA256())
        )
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return key.private_bytes(encoding, form, serialization.NoEncryption()) + certificate.public_bytes(encoding)


@pytest.fixture
def client_authority() -> type[ClientAuthority]:
    return ClientAuthority
