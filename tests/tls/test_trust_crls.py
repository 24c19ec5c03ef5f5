"""CRLs that are about less, or about something else, than they seem."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from tests.credentials import (
    DAY,
    HOUR,
    Credential,
    Grid,
    authority,
    crl,
    end_entity,
    name_hash,
    now,
    rsa_key,
)
from tests.tls.door import Door

ROGER = "/C=CA/O=Grid/CN=Roger Impey"
MODES = ["require", "if-present"]


def point(**said: Any) -> x509.IssuingDistributionPoint:
    """An IssuingDistributionPoint (RFC 5280, 5.2.5) that says only this."""
    usual = {
        "full_name": None, "relative_name": None, "only_contains_user_certs": False,
        "only_contains_ca_certs": False, "only_some_reasons": None, "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }  # fmt: skip
    return x509.IssuingDistributionPoint(**(usual | said))


NARROW = {
    "indirect": point(indirect_crl=True),
    "for some reasons": point(only_some_reasons=frozenset([x509.ReasonFlags.key_compromise])),
    "for attribute certificates": point(only_contains_attribute_certs=True),
    "for CAs": point(only_contains_ca_certs=True),
    "for users": point(only_contains_user_certs=True),
    "of another place": point(
        full_name=[x509.UniformResourceIdentifier("http://elsewhere.example.org/crl")]
    ),
    "a delta": x509.DeltaCRLIndicator(1),
    "not known": x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00"),
}


def put(grid: Grid, *contents: bytes) -> None:
    """These are the CRLs of the grid's CA, and no others."""
    for number, content in enumerate(contents):
        (grid.directory.path / f"{name_hash(grid.ca)}.r{number}").write_bytes(content)


def load(door: Door, mode: str) -> list[str]:
    door.tls._settings = evolve(door.tls._settings, crl=mode)
    return door.tls.load()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", NARROW)
@pytest_twisted.ensureDeferred
async def test_a_crl_of_less_than_everything_is_none(
    door: Door, grid: Grid, kind: str, mode: str
) -> None:
    """It is no CRL of this CA for somebody, so everybody below the CA stays outside."""
    user = grid.user()
    put(grid, crl(grid.ca, more=[(NARROW[kind], True)]))
    assert any(f"{name_hash(grid.ca)}.r0" in line for line in load(door, mode))
    for credential in (user, user.proxy(), user.proxy().proxy()):
        await door.refuses(credential)


@pytest.mark.parametrize("kind", NARROW)
@pytest_twisted.ensureDeferred
async def test_beside_a_complete_one_it_takes_nothing_away(
    door: Door, grid: Grid, kind: str
) -> None:
    user, revoked = grid.user(), grid.user("Revoked")
    put(grid, crl(grid.ca, [revoked]), crl(grid.ca, more=[(NARROW[kind], True)]))
    load(door, "require")
    for credential in (revoked, revoked.proxy()):
        await door.refuses(credential)
    await door.welcomes(user.proxy())


@pytest.mark.parametrize("kind", NARROW)
@pytest_twisted.ensureDeferred
async def test_a_kept_connection_is_judged_the_same(door: Door, grid: Grid, kind: str) -> None:
    kept = await door.visit(grid.user().proxy())
    put(grid, crl(grid.ca, more=[(NARROW[kind], True)]))
    load(door, "if-present")
    assert "CRL" in (await kept.again()).refusal
    kept.leave()


@pytest_twisted.ensureDeferred
async def test_one_for_users_and_one_for_cas_are_one_together(door: Door, grid: Grid) -> None:
    user, revoked = grid.user(), grid.user("Revoked")
    for_users = crl(grid.ca, [revoked], more=[(NARROW["for users"], True)])
    for_cas = crl(grid.ca, more=[(NARROW["for CAs"], True)])
    put(grid, for_users, for_cas)
    assert load(door, "require") == []
    await door.welcomes(user.proxy())
    for credential in (revoked, revoked.proxy()):
        await door.refuses(credential)


@pytest_twisted.ensureDeferred
async def test_a_certificate_on_hold_is_revoked(door: Door, grid: Grid) -> None:
    user = grid.user()
    hold = (
        x509.RevokedCertificateBuilder()
        .serial_number(user.serial)
        .revocation_date(now() - HOUR)
        .add_extension(x509.CRLReason(x509.ReasonFlags.certificate_hold), critical=False)
        .build()
    )
    builder = x509.CertificateRevocationListBuilder(
        grid.ca.certificate.subject, now() - HOUR, now() + DAY, [], [hold]
    )
    put(grid, builder.sign(grid.ca.key, hashes.SHA256()).public_bytes(Encoding.PEM))
    door.tls.load()
    await door.refuses(user.proxy())


@pytest.mark.parametrize("mode", MODES)
@pytest_twisted.ensureDeferred
async def test_a_crl_signed_for_the_ca_by_another(door: Door, grid: Grid, mode: str) -> None:
    """Its users included: their certificates are no less public than their keys are theirs."""
    user = grid.user()
    for signer in (user.key, rsa_key("stranger"), authority("/C=XX/CN=Other").key):
        put(grid, crl(grid.ca, key=signer))
        load(door, mode)
        await door.refuses(user.proxy())


@pytest_twisted.ensureDeferred
async def test_the_crl_of_a_sub_ca_that_only_the_client_shows(door: Door, grid: Grid) -> None:
    """A CRL alone, without the sub-CA's certificate beside it, is looked at too."""
    sub = authority("/C=CA/O=Grid/CN=Sub CA", grid.ca)
    user, revoked = end_entity(ROGER, sub), end_entity("/C=CA/O=Grid/CN=Revoked", sub)
    (grid.directory.path / "12345678.r0").write_bytes(crl(sub, [revoked]))
    load(door, "require")
    await door.welcomes(user.proxy())
    shown: Credential
    for shown in (revoked, revoked.proxy()):
        await door.refuses(shown)
