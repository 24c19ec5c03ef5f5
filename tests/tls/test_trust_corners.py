"""Corners of names, numbers, times and extensions, with the legacy option off and on."""

from __future__ import annotations

import pytest
import pytest_twisted
from attrs import evolve

from tests.credentials import (
    CLIENT_AUTH,
    DAY,
    SERVER_AUTH,
    TRUE,
    Extension,
    Grid,
    authority,
    crl,
    der,
    end_entity,
    extended_key_usage,
    integer,
    name_hash,
    now,
    octets,
    oid,
    proxy_cert_info,
    raw_crl,
    rdn,
    rdns,
    rsa_key,
    seq,
)
from tests.tls.door import HOSTILE, Door

pytestmark = HOSTILE

ROGER = "/C=CA/O=Grid/CN=Roger Impey"
GRID = rdns("/C=CA/O=Grid")
MAKERS = ["proxy", "legacy_proxy", "draft_proxy"]

PRINTABLE, TELETEX, IA5 = 0x13, 0x14, 0x16


# -- names ----------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_name_is_the_same_in_every_string_type(door: Door, grid: Grid) -> None:
    """But what a proxy calls its issuer must be that very name."""
    utf8 = GRID + rdn(("CN", "Roger Impey"))
    for tag in (PRINTABLE, IA5):
        user = end_entity(GRID + rdn(("CN", der(tag, b"Roger Impey"))), grid.ca)
        mixed = user.proxy(name=utf8 + rdn(("CN", "1")))
        for credential in (user, user.proxy(), mixed):
            assert (await door.welcomes(credential)).subject == ROGER
        await door.refuses(user.proxy(issuer_name=utf8))


@pytest_twisted.ensureDeferred
async def test_teletex_strings_are_read_as_far_as_they_have_one_reading(
    door: Door, grid: Grid
) -> None:
    plain = end_entity(GRID + rdn(("CN", der(TELETEX, b"Roger Impey"))), grid.ca)
    assert (await door.welcomes(plain.proxy())).subject == ROGER
    accented = end_entity(GRID + rdn(("CN", der(TELETEX, b"Ren\xe9"))), grid.ca)
    for credential in (accented, accented.proxy(), accented.legacy_proxy()):
        await door.refuses(credential)


UNSEEN = {
    "no-break space": "Roger\u00a0Impey",
    "em space": "Roger\u2003Impey",
    "ideographic space": "Roger\u3000Impey",
    "soft hyphen": "Roger\u00ad Impey",
    "word joiner": "Roger\u2060 Impey",
    "byte order mark": "Roger\ufeff Impey",
    "right-to-left mark": "Roger\u200f Impey",
    "right-to-left override": "Roger\u202e Impey",
    "right-to-left isolate": "Roger\u2067 Impey",
    "Arabic letter mark": "Roger\u061c Impey",
    "tag": "Roger\U000e0041 Impey",
    "private use": "Roger\ue000 Impey",
    "no character": "Roger\ufffe Impey",
    "grapheme joiner": "Roger\u034f Impey",
    "Hangul filler": "Roger\u3164Impey",
    "half-width Hangul filler": "Roger\uffa0Impey",
    "Hangul initial filler": "Roger\u115fImpey",
    "Braille blank": "Roger\u2800Impey",
    "Khmer inherent vowel": "Roger\u17b4 Impey",
    "Mongolian selector": "Roger\u180b Impey",
    "variation selector": "Roger\ufe0f Impey",
    "variation selector 17": "Roger\U000e0100 Impey",
}


@pytest.mark.parametrize("name", UNSEEN)
@pytest_twisted.ensureDeferred
async def test_what_one_does_not_see_in_a_name(door: Door, grid: Grid, name: str) -> None:
    user = end_entity(GRID + rdn(("CN", UNSEEN[name])), grid.ca)
    for credential in (user, user.proxy()):
        assert "invisible" in await door.refuses(credential)
    roger = grid.user()
    await door.refuses(roger.proxy(name=roger.subject + rdn(("CN", UNSEEN[name]))))


@pytest_twisted.ensureDeferred
async def test_people_of_all_scripts_are_welcome(door: Door, grid: Grid) -> None:
    french, japanese, greek = (
        "Ren\u00e9e O\u2019Neil",
        "\u5c71\u7530\u592a\u90ce",
        "\u0395\u03c5\u03b1",
    )
    hebrew, composed = "\u05d3\u05d5\u05d3", "Rene\u0301"
    for name in (french, japanese, greek, hebrew, composed):
        user = end_entity(GRID + rdn(("CN", name)), grid.ca)
        assert (await door.welcomes(user.proxy())).subject == f"/C=CA/O=Grid/CN={name}"


@pytest_twisted.ensureDeferred
async def test_backslashes_slashes_and_plus_signs_of_a_name_stay_its_own(
    door: Door, grid: Grid
) -> None:
    names = {
        "Eve/CN=Roger Impey": r"Eve\/CN=Roger Impey",
        "Eve\\/CN=Roger Impey": r"Eve\\\/CN=Roger Impey",
        "Eve\\": r"Eve\\",
        "Roger Impey/": r"Roger Impey\/",
        "Roger Impey+UID=root": r"Roger Impey\+UID=root",
        "/C=CA/O=Grid/CN=Roger Impey": r"\/C=CA\/O=Grid\/CN=Roger Impey",
    }
    seen = set()
    for name, text in names.items():
        user = end_entity(GRID + rdn(("CN", name)), grid.ca)
        seen.add((await door.welcomes(user.proxy())).subject)
        assert f"/C=CA/O=Grid/CN={text}" in seen
    assert len(seen) == len(names)
    assert ROGER not in seen


@pytest_twisted.ensureDeferred
async def test_a_type_that_only_looks_like_cn(door: Door, grid: Grid) -> None:
    user = end_entity(GRID + rdn(("2.5.4.3.1", "Roger Impey")), grid.ca)
    assert (await door.welcomes(user)).subject == "/C=CA/O=Grid/2.5.4.3.1=Roger Impey"


@pytest_twisted.ensureDeferred
async def test_the_order_of_the_rdns_counts(door: Door, grid: Grid) -> None:
    turned = end_entity("/CN=Roger Impey/O=Grid/C=CA", grid.ca)
    door.tls._settings = evolve(door.tls._settings, signing_policy="off")
    door.tls.load()
    assert (await door.welcomes(turned.proxy())).subject == "/CN=Roger Impey/O=Grid/C=CA"


# -- numbers and times ----------------------------------------------------------------------


@pytest.mark.parametrize("serial", [-1, -(2**70), 0, 2**64, 2**159])
@pytest_twisted.ensureDeferred
async def test_odd_serial_numbers_are_revoked_like_others(
    door: Door, grid: Grid, serial: int
) -> None:
    user = grid.user(serial=serial)
    path = grid.directory.path / f"{name_hash(grid.ca)}.r0"
    path.write_bytes(raw_crl(grid.ca, serial))
    door.tls.load()
    for credential in (user, user.proxy(), user.proxy().proxy(), user.legacy_proxy()):
        await door.refuses(credential)
    await door.welcomes(grid.user("Anna", serial=77).proxy())


def utc(text: str) -> bytes:
    return der(0x17, text.encode())


def general(text: str) -> bytes:
    return der(0x18, text.encode())


ODD_TIMES = {
    "with an offset": utc("400101000000+0100"),
    "with fractions": general("20400101000000.5Z"),
    "no such day": utc("400230000000Z"),
    "no such month": utc("401301000000Z"),
    "hour 24": utc("400101240000Z"),
    "second 60": utc("400101000060Z"),
    "letters": utc("4001010000xxZ"),
    "a year of five digits": general("120400101000000Z"),
    "a negative year": general("-0400101000000Z"),
    "long ago": utc("500101000000Z"),
}


@pytest.mark.parametrize("time", ODD_TIMES)
@pytest_twisted.ensureDeferred
async def test_times_that_are_none(door: Door, grid: Grid, time: str) -> None:
    encoded = ODD_TIMES[time]
    user = grid.user()
    for credential in (
        grid.user(ends=encoded), grid.user(ends=encoded).proxy(), user.proxy(ends=encoded),
        user.legacy_proxy(ends=encoded), user.draft_proxy(ends=encoded),
    ):  # fmt: skip
        await door.refuses(credential)


@pytest_twisted.ensureDeferred
async def test_ends_before_it_begins(door: Door, grid: Grid) -> None:
    for times in ({"begins": now() + DAY, "ends": now() - DAY}, {"begins": now() + DAY}):
        await door.refuses(grid.user(**times))
        await door.refuses(grid.user().proxy(**times))


@pytest_twisted.ensureDeferred
async def test_without_an_end(door: Door, grid: Grid) -> None:
    """RFC 5280, 4.1.2.5: 99991231235959Z means that no end is known."""
    for_ever = grid.user(ends=general("99991231235959Z"))
    identity = await door.welcomes(for_ever)
    assert identity.not_after == grid.ca.certificate.not_valid_after_utc
    assert (await door.welcomes(for_ever.proxy())).not_after < now() + DAY


# -- extensions -----------------------------------------------------------------------------

DIRECTORY_NAME = der(0xA4, seq(rdns("/C=CA/O=Grid")))
RESTRICTIONS = {
    "permitted names": ("2.5.29.30", seq(der(0xA0, seq(DIRECTORY_NAME)))),
    "excluded names": ("2.5.29.30", seq(der(0xA1, seq(der(0xA4, seq(rdns("/C=XX"))))))),
    "explicit policy": ("2.5.29.36", seq(der(0x80, b"\x00"))),
    "no policy mapping": ("2.5.29.36", seq(der(0x81, b"\x00"))),
    "any policy inhibited": ("2.5.29.54", integer(0)),
    "policies": ("2.5.29.32", seq(seq(oid("1.2.3.4")))),
    "policy mappings": ("2.5.29.33", seq(seq(oid("1.2.3.4"), oid("1.2.3.5")))),
}


@pytest.mark.parametrize("restriction", RESTRICTIONS)
@pytest.mark.parametrize("make", MAKERS)
@pytest_twisted.ensureDeferred
async def test_restrictions_in_a_proxy_that_nobody_would_keep(
    door: Door, grid: Grid, make: str, restriction: str
) -> None:
    """Critical, and not of RFC 3820: who wrote it meant something that is not checked here."""
    more = [Extension(*RESTRICTIONS[restriction], critical=True)]
    proxy = getattr(grid.user(), make)(more=more)
    await door.refuses(proxy)
    await door.refuses(getattr(proxy, make)())


@pytest_twisted.ensureDeferred
async def test_purposes_beside_and_instead_of_a_clients(door: Door, grid: Grid) -> None:
    anything, mail = "2.5.29.37.0", "1.3.6.1.5.5.7.3.4"
    for purpose in (extended_key_usage(SERVER_AUTH, CLIENT_AUTH, mail),
                    Extension("2.5.29.37", seq(oid(CLIENT_AUTH)), critical=True)):  # fmt: skip
        user = grid.user(purpose=purpose)
        await door.welcomes(user)
        await door.welcomes(user.proxy(more=[purpose]))
    for purpose in (extended_key_usage(anything), extended_key_usage(mail), extended_key_usage()):
        user = grid.user(purpose=purpose)
        for credential in (user, user.proxy(), user.legacy_proxy()):
            await door.refuses(credential)
        await door.refuses(grid.user().proxy(more=[purpose]))
    twice = [extended_key_usage(CLIENT_AUTH), extended_key_usage(SERVER_AUTH)]
    await door.refuses(grid.user(purpose=None, more=twice))
    await door.refuses(grid.user().proxy(more=twice))


@pytest_twisted.ensureDeferred
async def test_a_critical_flag_that_is_no_der(door: Door, grid: Grid) -> None:
    """DER knows one TRUE; who reads only that one takes this for "not critical"."""
    info = proxy_cert_info()
    encoded = seq(oid(info.dotted), der(0x01, b"\x01"), octets(info.value))
    proxy = grid.user().proxy(info=_Raw("", encoded))
    await door.refuses(proxy)
    written_out = seq(oid(info.dotted), der(0x01, b"\x00"), octets(info.value))
    await door.refuses(grid.user().proxy(info=_Raw("", written_out)))
    assert TRUE in seq(oid(info.dotted), TRUE, octets(info.value))


class _Raw(Extension):
    """An extension as it is."""

    def encoded(self) -> bytes:
        return self.value


# -- authorities ----------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_two_cas_of_one_name_are_held_to_their_own_crls(door: Door, grid: Grid) -> None:
    twin = authority("/C=CA/O=Grid/CN=Test CA", key=rsa_key("twin"))
    mine, its = grid.user(serial=5001), end_entity("/C=CA/O=Grid/CN=Anna", twin, serial=5002)
    hashed, place = name_hash(grid.ca), grid.directory.path
    (place / f"{hashed}.1").write_bytes(twin.pem())
    (place / f"{hashed}.r1").write_bytes(crl(twin))
    assert door.tls.load() == []
    for user in (mine, its):
        await door.welcomes(user)
        await door.welcomes(user.proxy())
    (place / f"{hashed}.r1").write_bytes(crl(twin, [mine, its]))
    door.tls.load()
    await door.welcomes(mine.proxy())
    for credential in (its, its.proxy()):
        await door.refuses(credential)


@pytest_twisted.ensureDeferred
async def test_a_cross_signed_ca_is_itself_whoever_vouches_for_it(door: Door, grid: Grid) -> None:
    other = authority("/C=XX/CN=Other CA")
    cross = authority("/C=XX/CN=Other CA", grid.ca, key=other.key)
    user = end_entity("/C=CA/O=Grid/CN=Anna", other)
    grid.directory.add(other)
    door.tls.load()
    for send in ([user], [user, cross], [user, cross, other]):
        identity = await door.welcomes(user.proxy(), send=send)
        assert identity.issuer == "/C=XX/CN=Other CA"


@pytest_twisted.ensureDeferred
async def test_a_cross_signed_ca_counts_only_by_who_is_trusted(door: Door, grid: Grid) -> None:
    """Its own root is unknown here; who vouches for it is held to the policy."""
    other = authority("/C=XX/CN=Other CA")
    cross = authority("/C=XX/CN=Other CA", grid.ca, key=other.key)
    user = end_entity(ROGER, other)
    assert "may not issue" in await door.refuses(user.proxy(), send=[user, cross])
    for send in ([user], [user, other]):
        await door.refuses(user.proxy(), send=send)


@pytest_twisted.ensureDeferred
async def test_an_expired_ca_beside_its_renewed_certificate(door: Door, grid: Grid) -> None:
    old = authority("/C=XX/CN=Renewed", ends=now() - DAY)
    new = authority("/C=XX/CN=Renewed", key=old.key)
    user = end_entity("/C=XX/CN=Anna", old)
    hashed = grid.directory.add(new)
    (grid.directory.path / f"{hashed}.1").write_bytes(old.pem())
    assert any("expired" in warning for warning in door.tls.load())
    for send in ([user], [user, old], [user, old, new]):
        await door.welcomes(user.proxy(), send=send)
