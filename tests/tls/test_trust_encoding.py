"""Cases 55 to 58, and more: encodings that two readers read in two ways."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.credentials import (
    Credential,
    Extension,
    Grid,
    basic_constraints,
    certificate,
    der,
    end_entity,
    key_usage,
    oid,
    proxy_cert_info,
    rdn,
    rdns,
    rsa_key,
    seq,
)
from tests.tls.door import HOSTILE, Door

pytestmark = HOSTILE

ROGER = "/C=CA/O=Grid/CN=Roger Impey"
GRID = rdns("/C=CA/O=Grid")

NAMES = {
    "NUL": rdn(("CN", "Roger Impey\0.evil.example.org")),
    "NUL alone": rdn(("CN", "\0")),
    "newline": rdn(("CN", "Roger\nImpey")),
    "return": rdn(("CN", "Roger Impey\r")),
    "escape": rdn(("CN", "\x1b[2JRoger")),
    "delete": rdn(("CN", "Roger\x7f")),
    "C1 control": rdn(("CN", "Roger\x85Impey")),
    "right to left": rdn(("CN", "\u202eyepmI regoR")),
    "zero width": rdn(("CN", "Roger\u200bImpey")),
    "line separator": rdn(("CN", "Roger\u2028Impey")),
    "empty": rdn(("CN", "")),
    "blank": rdn(("CN", " ")),
    "leading blank": rdn(("CN", " Roger Impey")),
    "trailing blank": rdn(("CN", "Roger Impey ")),
    "no-break space": rdn(("CN", "Roger Impey\u00a0")),
    "bits": rdn(("CN", der(0x03, b"\0Roger Impey"))),
    "a unique identifier, which is no text": rdn(("2.5.4.45", der(0x03, b"\0Roger"))),
    "empty RDN": der(0x31),
}


@pytest.mark.parametrize("name", NAMES)
@pytest_twisted.ensureDeferred
async def test_case_55_names_that_are_not_what_they_seem(door: Door, grid: Grid, name: str) -> None:
    for subject in (GRID + NAMES[name], GRID + NAMES[name] + rdn(("CN", "Roger Impey"))):
        user = end_entity(subject, grid.ca)
        for credential in (user, user.proxy(), user.legacy_proxy()):
            await door.refuses(credential)


@pytest.mark.parametrize("name", NAMES)
@pytest_twisted.ensureDeferred
async def test_case_55_in_the_name_of_a_proxy(door: Door, grid: Grid, name: str) -> None:
    user = grid.user()
    await door.refuses(user.proxy(name=user.subject + NAMES[name]))


@pytest_twisted.ensureDeferred
async def test_case_55_a_name_that_is_too_long(door: Door, grid: Grid) -> None:
    user = end_entity(GRID + rdn(("CN", "x" * 2000)), grid.ca)
    for credential in (user, user.proxy()):
        assert "longer than" in await door.refuses(credential)


@pytest_twisted.ensureDeferred
async def test_case_55_no_name_at_all(door: Door, grid: Grid) -> None:
    for credential in (end_entity(b"", grid.ca), end_entity(b"", grid.ca).proxy()):
        await door.refuses(credential)


@pytest_twisted.ensureDeferred
async def test_case_55_string_types_make_no_difference(door: Door, grid: Grid) -> None:
    kinds = {0x13: "ascii", 0x16: "ascii", 0x1E: "utf-16-be", 0x1C: "utf-32-be"}
    for tag, encoding in kinds.items():
        value = der(tag, "Roger Impey".encode(encoding))
        user = end_entity(GRID + rdn(("CN", value)), grid.ca)
        assert (await door.welcomes(user.proxy())).subject == ROGER


@pytest_twisted.ensureDeferred
async def test_case_56_eve_with_rogers_cn_below(door: Door, grid: Grid) -> None:
    eve = end_entity("/C=CA/O=Grid/CN=Eve/CN=Roger Impey", grid.ca)
    slash = end_entity(GRID + rdn(("CN", "Eve/CN=Roger Impey")), grid.ca)
    evil = end_entity(GRID + rdn(("CN", "Roger Impey/CN=proxy")), grid.ca)
    for credential, subject in (
        (eve, "/C=CA/O=Grid/CN=Eve/CN=Roger Impey"),
        (slash, "/C=CA/O=Grid/CN=Eve\\/CN=Roger Impey"),
        (evil, "/C=CA/O=Grid/CN=Roger Impey\\/CN=proxy"),
    ):
        assert (await door.welcomes(credential)).subject == subject
        assert (await door.welcomes(credential.proxy())).subject == subject


@pytest_twisted.ensureDeferred
async def test_case_56_a_slash_in_another_attribute(door: Door, grid: Grid) -> None:
    user = end_entity(rdn(("C", "CA")) + rdn(("O", "Grid/CN=Roger Impey")), grid.ca)
    assert (await door.welcomes(user)).subject == "/C=CA/O=Grid\\/CN=Roger Impey"
    both = end_entity(GRID + rdn(("CN", "Roger Impey"), ("UID", "eve")), grid.ca)
    assert (await door.welcomes(both)).subject == "/C=CA/O=Grid/UID=eve+CN=Roger Impey"


@pytest_twisted.ensureDeferred
async def test_case_57_an_extension_twice(door: Door, grid: Grid) -> None:
    user = grid.user()
    for extension in (basic_constraints(False), key_usage(0), Extension("1.2.3", b"\x05\x00")):
        twice = [extension, extension]
        for credential in (user.proxy(more=twice), user.legacy_proxy(more=twice)):
            await door.refuses(credential)
        double = end_entity(ROGER, grid.ca, more=twice)
        await door.refuses(double)
        await door.refuses(double.proxy())


@pytest.mark.parametrize("make", ["proxy", "legacy_proxy", "draft_proxy"])
@pytest_twisted.ensureDeferred
async def test_case_58_inner_and_outer_algorithm_differ(door: Door, grid: Grid, make: str) -> None:
    for inner in ("1.2.840.113549.1.1.12", "1.2.840.113549.1.1.5", "1.2.840.10045.4.3.2"):
        claimed = seq(oid(inner), der(0x05))
        forged = end_entity(ROGER, grid.ca, inner_algorithm=claimed)
        await door.refuses(forged)
        await door.refuses(getattr(forged, make)())
        await door.refuses(getattr(grid.user(), make)(inner_algorithm=claimed))


@pytest_twisted.ensureDeferred
async def test_certificates_of_version_1(door: Door, grid: Grid) -> None:
    """An end entity may be that old; a proxy without extensions is no RFC 3820 proxy."""
    user = grid.user()
    for make in ("proxy", "draft_proxy"):
        await door.refuses(getattr(user, make)(version=1))


@pytest_twisted.ensureDeferred
async def test_a_version_1_certificate_is_no_sub_ca(door: Door, grid: Grid) -> None:
    old = grid.ca.issue("/C=CA/O=Grid/CN=Old", rsa_key("old"), version=1)
    await door.refuses(end_entity(ROGER, old))
    await door.refuses(end_entity(ROGER, old).proxy())


@pytest_twisted.ensureDeferred
async def test_negative_and_huge_serial_numbers(door: Door, grid: Grid) -> None:
    """They say nothing, and break nothing."""
    for serial in (-1, 0, 2**200):
        credential = grid.user().proxy(serial=serial, name=grid.user().subject + rdn(("CN", "1")))
        visit = await door.visit(credential)
        assert visit.peer is None or visit.peer.refusal or visit.peer.identity
        visit.leave()


@pytest_twisted.ensureDeferred
async def test_self_signed_leaf_that_is_also_a_proxy(door: Door, grid: Grid) -> None:
    forged: Credential = certificate(ROGER, rsa_key("mallory"), [proxy_cert_info()])
    await door.refuses(forged)
    await door.refuses(forged, send=[grid.user(), grid.ca])
