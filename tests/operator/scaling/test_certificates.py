"""Certificates are renewed before they end, and never shown to somebody who can't know their authority yet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from pagoda_operator.scaling.certificates import (
    AUTHORITY_LIFE,
    AUTHORITY_RENEWAL,
    IDENTITY_LIFE,
    SETTLING,
    Authorities,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOSTS = ("pagoda.pagoda-system.svc", "10.0.0.1")


def verify(identity, bundle, now):
    """What a client does that was given the bundle: chain, dates, name. Raises VerificationError."""
    trusted = Store(x509.load_pem_x509_certificates(bundle))
    verifier = PolicyBuilder().store(trusted).time(now.replace(tzinfo=None))
    leaf = x509.load_pem_x509_certificate(identity.certificate)
    verifier.build_server_verifier(x509.DNSName(HOSTS[0])).verify(leaf, [])


def test_a_server_is_trusted_by_who_has_the_bundle():
    """The certificate names all hosts, and is of the authority in the bundle."""
    authorities = Authorities().renewed(NOW)
    identity = authorities.issue(HOSTS, NOW)
    verify(identity, authorities.bundle, NOW)
    names = x509.load_pem_x509_certificate(identity.certificate).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert [str(name.value) for name in names.value] == list(HOSTS)


def test_a_server_is_not_trusted_by_others():
    """Two installations have the same names in their certificates and don't trust each other."""
    with pytest.raises(VerificationError):
        verify(Authorities().renewed(NOW).issue(HOSTS, NOW), Authorities().renewed(NOW).bundle, NOW)


def test_clocks_may_differ():
    """A client whose clock is half an hour late accepts a new certificate."""
    authorities = Authorities().renewed(NOW)
    verify(authorities.issue(HOSTS, NOW), authorities.bundle, NOW - timedelta(minutes=30))


def test_authorities_survive_their_secret():
    """What is read back signs as before, and the order of a Secret's keys does not matter."""
    old = Authorities().renewed(NOW)
    both = old.renewed(NOW + AUTHORITY_LIFE - AUTHORITY_RENEWAL)
    data = both.to_data()
    read = Authorities.from_data(dict(reversed(data.items())))
    assert read.bundle == both.bundle
    assert read.to_data() == data
    verify(read.issue(HOSTS, NOW), both.bundle, NOW)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda data, crt, key: data.pop(key), "has no"),
        (lambda data, crt, key: data.update({key: b"nonsense"}), "no PEM certificate and key"),
        (lambda data, crt, key: data.update({key: [*Authorities().renewed(NOW).to_data().values()][1]}), "not the key"),
    ],
    ids=["lost", "garbled", "another's"],
)
def test_a_secret_that_was_tampered_with_is_told(change, complaint):
    """A key that is missing, garbled or another certificate's is named, and not used."""
    data = Authorities().renewed(NOW).to_data()
    change(data, *data)
    with pytest.raises(ValueError, match=complaint):
        Authorities.from_data(data)


def test_nothing_is_renewed_without_need():
    """Until a year before its end an authority is left alone, as the very same object."""
    authorities = Authorities().renewed(NOW)
    late = NOW + AUTHORITY_LIFE - AUTHORITY_RENEWAL - timedelta(seconds=1)
    assert authorities.renewed(late) is authorities


def test_thirty_years_of_renewals_never_show_an_unknown_certificate():
    """At each renewal, a client that still has the bundle of the former one trusts what is shown, until the next."""
    now, authorities, seen = NOW, Authorities().renewed(NOW), []
    identity = authorities.issue(HOSTS, now)
    before = authorities.bundle
    while now < NOW + timedelta(days=365 * 30):
        now = identity.renew_at
        authorities = authorities.renewed(now)
        identity = authorities.issue(HOSTS, now)
        verify(identity, before, now)
        verify(identity, authorities.bundle, identity.renew_at)
        assert now < identity.renew_at <= now + IDENTITY_LIFE
        before = authorities.bundle
        seen.append(len(authorities.members))
    assert set(seen) == {1, 2}, "there is an overlap, and it ends"


def test_a_new_authority_does_not_sign_at_once():
    """For an hour certificates are still the old authority's; then they are renewed, and are the new one's."""
    old = Authorities().renewed(NOW)
    change = NOW + AUTHORITY_LIFE - AUTHORITY_RENEWAL
    both = old.renewed(change)
    first = both.issue(HOSTS, change)
    verify(first, old.bundle, change)
    assert first.renew_at == change + SETTLING
    second = both.issue(HOSTS, first.renew_at)
    with pytest.raises(VerificationError):
        verify(second, old.bundle, first.renew_at)
    verify(second, both.bundle, first.renew_at)
