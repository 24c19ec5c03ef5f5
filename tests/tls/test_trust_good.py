"""Cases 1 to 12: who must be let in, and as whom."""

from __future__ import annotations

import pytest
import pytest_twisted
from attrs import evolve

from repoman.tls import TlsSettings
from tests.credentials import (
    DIGITAL_SIGNATURE,
    NON_REPUDIATION,
    Credential,
    Grid,
    authority,
    ed25519_key,
    end_entity,
    key_usage,
    p256_key,
)
from tests.tls.door import Door

ROGER = "/C=CA/O=Grid/CN=Roger Impey"
CA = "/C=CA/O=Grid/CN=Test CA"


@pytest_twisted.ensureDeferred
async def test_case_1_the_end_entity_itself(door: Door, grid: Grid) -> None:
    identity = await door.welcomes(grid.user())
    assert (identity.subject, identity.issuer) == (ROGER, CA)
    assert (identity.proxies, identity.limited) == (0, False)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("depth", [1, 2, 3, 8])
async def test_case_3_proxies_deep(door: Door, grid: Grid, depth: int) -> None:
    credential = grid.user()
    for _ in range(depth):
        credential = credential.proxy()
    identity = await door.welcomes(credential)
    assert (identity.subject, identity.issuer, identity.proxies) == (ROGER, CA, depth)


@pytest_twisted.ensureDeferred
async def test_case_4_three_cns_are_one_whole_dn(door: Door, grid: Grid) -> None:
    name = "/C=CA/O=Grid/OU=Users/CN=jdoe/CN=123456/CN=John Doe"
    user = end_entity(name, grid.ca)
    assert (await door.welcomes(user)).subject == name
    assert (await door.welcomes(user.proxy())).subject == name
    assert (await door.welcomes(user.proxy().proxy())).subject == name


@pytest_twisted.ensureDeferred
async def test_case_5_limited(door: Door, grid: Grid) -> None:
    identity = await door.welcomes(grid.user().proxy(limited=True))
    assert (identity.subject, identity.limited) == (ROGER, True)


@pytest_twisted.ensureDeferred
async def test_case_6_limited_under_limited_or_full(door: Door, grid: Grid) -> None:
    limited = grid.user().proxy(limited=True)
    assert (await door.welcomes(limited.proxy(limited=True))).limited
    assert (await door.welcomes(grid.user().proxy().proxy(limited=True))).limited


@pytest_twisted.ensureDeferred
async def test_case_7_without_key_usage_or_with_non_repudiation(door: Door, grid: Grid) -> None:
    signs = key_usage(DIGITAL_SIGNATURE, NON_REPUDIATION)
    assert (await door.welcomes(grid.user().proxy(usage=None).proxy())).subject == ROGER
    assert (await door.welcomes(grid.user(usage=signs).proxy(usage=signs))).subject == ROGER
    assert (await door.welcomes(grid.user(usage=None).proxy())).subject == ROGER


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("key", [p256_key, ed25519_key])
async def test_case_8_modern_keys(door: Door, grid: Grid, key) -> None:
    user = grid.user(key=key("user"))
    assert (await door.welcomes(user)).subject == ROGER
    assert (await door.welcomes(user.proxy(key=key("proxy")).proxy())).subject == ROGER


@pytest_twisted.ensureDeferred
async def test_case_8_a_modern_ca(door: Door, grid: Grid) -> None:
    modern = authority("/C=CA/O=Modern/CN=CA", key=p256_key("modern"))
    grid.directory.add(modern)
    door.tls.load()
    user = end_entity("/C=CA/O=Modern/CN=Roger", modern, key=ed25519_key("roger"))
    assert (await door.welcomes(user.proxy())).issuer == "/C=CA/O=Modern/CN=CA"


def _sub_ca(grid: Grid, path_length: int | None = None) -> Credential:
    return authority("/C=CA/O=Grid/CN=Sub CA", grid.ca, path_length)


@pytest_twisted.ensureDeferred
async def test_case_9_the_chain_in_another_order(door: Door, grid: Grid) -> None:
    proxy = end_entity(ROGER, _sub_ca(grid)).proxy().proxy()
    for order in (reversed(proxy.sent), proxy.sent[1:] + proxy.sent[:1]):
        assert (await door.welcomes(proxy, send=tuple(order))).subject == ROGER


@pytest_twisted.ensureDeferred
async def test_case_10_root_sub_ca_and_duplicates_sent_along(door: Door, grid: Grid) -> None:
    proxy = end_entity(ROGER, _sub_ca(grid)).proxy()
    for send in (proxy.issuers, proxy.sent * 2, (proxy, *proxy.issuers, proxy)):
        identity = await door.welcomes(proxy, send=send)
        assert (identity.subject, identity.proxies) == (ROGER, 1)


@pytest_twisted.ensureDeferred
async def test_case_10_a_sub_ca_from_the_directory(door: Door, grid: Grid) -> None:
    sub = _sub_ca(grid)
    grid.directory.add(sub)
    door.tls.load()
    proxy = end_entity(ROGER, sub).proxy()
    identity = await door.welcomes(proxy, send=proxy.issuers[:1])
    assert identity.issuer == "/C=CA/O=Grid/CN=Sub CA"


@pytest_twisted.ensureDeferred
async def test_case_11_sub_ca_without_sub_cas_and_two_proxies(door: Door, grid: Grid) -> None:
    proxy = end_entity(ROGER, _sub_ca(grid, path_length=0)).proxy().proxy()
    assert (await door.welcomes(proxy)).subject == ROGER


def _old_proxies(user: Credential) -> dict[str, Credential]:
    return {
        "legacy": user.legacy_proxy(),
        "two legacy": user.legacy_proxy().legacy_proxy(),
        "limited legacy": user.legacy_proxy(limited=True).legacy_proxy(limited=True),
        "draft": user.draft_proxy(),
        "three draft": user.draft_proxy(path_length=2).draft_proxy().draft_proxy(limited=True),
    }


@pytest.mark.parametrize("kind", _old_proxies(end_entity(ROGER, authority(CA))))
@pytest_twisted.ensureDeferred
async def test_case_12_old_proxies_are_refused_clearly(door: Door, grid: Grid, kind: str) -> None:
    reason = await door.refuses(_old_proxies(grid.user())[kind])
    assert "make a new one with grid-proxy-init -rfc" in reason
    assert ROGER in reason


class TestWithTheOption:
    """The operator lets old proxies in."""

    @pytest.fixture
    def legacy(self) -> bool:
        return True

    @pytest.mark.parametrize("kind", _old_proxies(end_entity(ROGER, authority(CA))))
    @pytest.mark.parametrize("sub_ca", ["root", "sub-CA with pathLen 0"])
    @pytest.mark.parametrize("crl", ["if-present", "require", "off"])
    @pytest_twisted.ensureDeferred
    async def test_case_12_old_proxies_with_the_option(
        self, grid: Grid, settings: TlsSettings, door: Door, kind: str, sub_ca: str, crl: str
    ) -> None:
        issuer = grid.ca
        if sub_ca != "root":
            issuer = _sub_ca(grid, path_length=0)
            grid.directory.add(issuer)
        door.tls._settings = evolve(settings, crl=crl)
        door.tls.load()
        proxy = _old_proxies(end_entity(ROGER, issuer))[kind]
        identity = await door.welcomes(proxy)
        assert identity.subject == ROGER
        assert identity.limited == ("limited" in kind or kind == "three draft")
        assert identity.proxies == len(proxy.issuers) - (1 if sub_ca == "root" else 2)

    @pytest_twisted.ensureDeferred
    async def test_case_12_new_ones_are_welcome_as_before(self, door: Door, grid: Grid) -> None:
        assert (await door.welcomes(grid.user().proxy().proxy())).proxies == 2
