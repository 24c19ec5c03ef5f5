"""What other grid software reads otherwise: proxies with old names, extensions of old versions."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.credentials import (
    CADirectory,
    Credential,
    Extension,
    Grid,
    authority,
    der,
    end_entity,
    name_hash,
    rdn,
    rsa_key,
)
from tests.tls.door import HOSTILE, Door

ROGER = "/C=CA/O=Grid/CN=Roger Impey"

OLD_NAMES = {
    "proxy": "proxy",
    "limited proxy": "limited proxy",
    "letter case": "Limited Proxy",
    "all capitals": "PROXY",
    "two blanks": "limited  proxy",
    "PrintableString": der(0x13, b"limited proxy"),
    "T61String": der(0x14, b"limited proxy"),
    "IA5String": der(0x16, b"proxy"),
    "BMPString": der(0x1E, "limited proxy".encode("utf-16-be")),
    "wide letters": "ｐroxy",
    "a blank that is wide": "limited　proxy",
}


def named(issuer: Credential, last: str | bytes) -> bytes:
    return issuer.subject + rdn(("CN", last))


@HOSTILE
@pytest.mark.parametrize("make", ["proxy", "draft_proxy"])
@pytest_twisted.ensureDeferred
async def test_a_proxy_with_a_policy_is_not_named_like_an_old_one(
    door: Door, grid: Grid, make: str
) -> None:
    """Globus takes the name for the truth, OpenSSL the extension: it would be both."""
    roger = grid.user()
    for number, last in enumerate(OLD_NAMES.values()):
        odd = getattr(roger, make)(name=named(roger, last), limited=bool(number % 2))
        reason = await door.refuses(odd)
        if make == "proxy":
            assert any(s in reason for s in ("named like an old proxy", "invisible"))
    await door.refuses(getattr(odd, make)(limited=True))
    good = roger.proxy()
    await door.refuses(getattr(good, make)(name=named(good, "limited proxy")))
    await door.refuses(good.proxy().proxy(name=named(good.proxy(), "proxy"), limited=True))


@pytest.mark.parametrize("legacy", [True])
@pytest_twisted.ensureDeferred
async def test_old_proxies_keep_their_names_where_they_are_allowed(
    door: Door, grid: Grid, legacy: bool
) -> None:
    roger = grid.user()
    assert not (await door.welcomes(roger.legacy_proxy())).limited
    assert (await door.welcomes(roger.legacy_proxy().legacy_proxy(limited=True))).limited
    assert not (await door.welcomes(roger.draft_proxy())).limited
    for name in ("Proxy", "LIMITED PROXY", "limited  proxy", "proxy 1"):
        await door.refuses(roger.legacy_proxy(name=named(roger, name)))


def of_version(grid: Grid, version: int) -> dict[str, Credential]:
    """Chains with one certificate of an old version that has extensions all the same."""
    old = {"version": version, "bare": False}
    roger, sub = grid.user(), authority("/C=CA/O=Grid/CN=Sub CA", grid.ca)
    early = authority("/C=CA/O=Grid/CN=Early CA", grid.ca, **old)
    person = end_entity(ROGER, grid.ca, **old)
    return {
        "an end entity": person,
        "a proxy of one": person.proxy(),
        "an old proxy of one": person.legacy_proxy(),
        "one below a sub-CA": end_entity(ROGER, sub, **old),
        "a sub-CA": end_entity(ROGER, early),
        "a sub-CA above a proxy": end_entity(ROGER, early).proxy(),
        "a proxy": roger.proxy(**old),
        "a limited proxy": roger.proxy(limited=True, **old),
        "an old proxy": roger.legacy_proxy(**old),
        "a draft proxy": roger.draft_proxy(**old),
        "the first of two proxies": roger.proxy(**old).proxy(),
        "the last of two proxies": roger.proxy().proxy(**old),
        "an old proxy without extensions": roger.legacy_proxy(version=version),
        "an end entity whose only extension is unknown": grid.ca.issue(
            ROGER, rsa_key("odd"), [_unknown()], identifiers=False, **old
        ),
    }


TOLD = ("get one of version 3", "not of version 3", "only 1 and 3 are", "-rfc", "alert")


def _unknown() -> Extension:
    return Extension("1.2.3.4", b"\x05\x00")


@HOSTILE
@pytest.mark.parametrize("number", [1, 2])
@pytest_twisted.ensureDeferred
async def test_only_version_3_has_extensions(door: Door, grid: Grid, number: int) -> None:
    """RFC 5280, 4.1.2.1: who reads by the version does not see them, OpenSSL does."""
    for what, credential in of_version(grid, number).items():
        reason = await door.refuses(credential)
        assert any(part in reason for part in TOLD), (what, reason)


@pytest_twisted.ensureDeferred
async def test_version_1_without_extensions_is_as_good_as_ever(door: Door, grid: Grid) -> None:
    """As an end entity; and a root is what the operator says that it is."""
    person = end_entity(ROGER, grid.ca, version=1)
    assert (await door.welcomes(person)).subject == ROGER
    assert (await door.welcomes(person.proxy())).subject == ROGER
    for bare in (True, False):
        root = authority(f"/CN=Root of version 1 {bare}", version=1, bare=bare)
        CADirectory(grid.directory.path).add(root)
        door.tls.load()
        assert name_hash(root)
        await door.welcomes(end_entity(ROGER, root).proxy())
