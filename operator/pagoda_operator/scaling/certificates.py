"""Certificates of the operator's own servers, for clusters without cert-manager.

What is kept is a few authorities, in one Secret that all instances read; what a server shows is issued by each instance
for itself, lives in memory and is short-lived. So renewing a server's certificate writes nothing and asks nobody, and
whoever trusts `Authorities.bundle` trusts every instance.

An authority is replaced long before it expires, and the new one only signs once those who were given the bundle have
had time to fetch the new one: at any time the bundle holds all that anybody may be shown.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE: Final = timedelta(days=3650)
AUTHORITY_RENEWAL: Final = timedelta(days=365)
"""So long before its end an authority gets a successor."""
SETTLING: Final = timedelta(hours=1)
"""So long a successor is in the bundle before it signs."""
IDENTITY_LIFE: Final = timedelta(days=30)
BACKDATED: Final = timedelta(hours=1)
"""Certificates begin in the past, since clocks of machines differ."""

AUTHORITY_NAME: Final = "pagoda-operator"
CERTIFICATE_SUFFIX: Final = ".crt"
KEY_SUFFIX: Final = ".key"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a server shows, PEM: its certificate and the key to it; to be replaced at `renew_at`."""

    certificate: bytes
    key: bytes
    renew_at: datetime


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority of the operator's own: nobody trusts it who was not given it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, now: datetime) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(AUTHORITY_NAME)
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            _certificate(name, key, now, now + AUTHORITY_LIFE)
            .issuer_name(name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @property
    def made(self) -> datetime:
        return self.certificate.not_valid_before_utc + BACKDATED

    @property
    def ends(self) -> datetime:
        return self.certificate.not_valid_after_utc

    def issue(self, hosts: Sequence[str], now: datetime) -> Identity:
        """A server's certificate for these DNS names and IP addresses, for `IDENTITY_LIFE`, to be renewed at 2/3."""
        key = ec.generate_private_key(ec.SECP256R1())
        ends = min(now + IDENTITY_LIFE, self.ends)
        certificate = (
            _certificate(_name(hosts[0][:64]), key, now, ends)
            .issuer_name(self.certificate.subject)
            .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(_issued_by(self.certificate), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return Identity(_pem(certificate), _key_pem(key), now + (ends - now) * 2 / 3)


@dataclass(frozen=True, slots=True)
class Authorities:
    """The operator's authorities that have not ended, the oldest first."""

    members: tuple[Authority, ...] = ()

    @classmethod
    def from_data(cls, data: Mapping[str, bytes]) -> Authorities:
        """Read what `to_data` wrote. Raises ValueError, naming the entry, on what is no certificate with its key."""
        members = []
        for name in data:
            if not name.endswith(CERTIFICATE_SUFFIX):
                continue
            key_name = name.removesuffix(CERTIFICATE_SUFFIX) + KEY_SUFFIX
            if key_name not in data:
                raise ValueError(f"{name} has no {key_name} beside it")
            try:
                certificate = x509.load_pem_x509_certificate(data[name])
                key = serialization.load_pem_private_key(data[key_name], password=None)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{name} and {key_name} are no PEM certificate and key: {error}") from error
            if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
                raise ValueError(f"{key_name} is not the key of {name}")
            members.append(Authority(certificate, key))
        return cls(tuple(sorted(members, key=lambda member: member.made)))

    def to_data(self) -> dict[str, bytes]:
        """A Secret's data: `SERIAL.crt` and `SERIAL.key` of each."""
        data = {}
        for member in self.members:
            serial = f"{member.certificate.serial_number:x}"
            data[serial + CERTIFICATE_SUFFIX] = _pem(member.certificate)
            data[serial + KEY_SUFFIX] = _key_pem(member.key)
        return data

    def renewed(self, now: datetime) -> Authorities:
        """Those that have not ended, and a successor where the last one ends soon; itself where nothing changes."""
        alive = tuple(member for member in self.members if now < member.ends)
        if not alive or now >= alive[-1].ends - AUTHORITY_RENEWAL:
            return Authorities((*alive, Authority.create(now)))
        return self if alive == self.members else Authorities(alive)

    def issue(self, hosts: Sequence[str], now: datetime) -> Identity:
        """A server's certificate, of the newest authority that everybody has heard of. Raises ValueError on none.

        Also to be renewed when a newer authority begins to sign.
        """
        alive = [member for member in self.members if now < member.ends]
        if not alive:
            raise ValueError("there is no authority to issue a certificate")
        settled = [member for member in alive if now >= member.made + SETTLING]
        identity = (settled[-1] if settled else alive[0]).issue(hosts, now)
        unsettled = [member.made + SETTLING for member in alive[1:] if now < member.made + SETTLING]
        return Identity(identity.certificate, identity.key, min([identity.renew_at, *unsettled]))

    @property
    def bundle(self) -> bytes:
        """All their certificates, PEM: what a client is given to trust."""
        return b"".join(_pem(member.certificate) for member in self.members)


def _certificate(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, ends: datetime
) -> x509.CertificateBuilder:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(ends)
        .add_extension(identifier, critical=False)
    )


def _issued_by(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
