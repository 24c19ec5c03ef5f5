"""Cases 18 to 24: names and signatures, with the legacy option off and on."""

from __future__ import annotations

import pytest
import pytest_twisted
from attrs import evolve

from tests.credentials import (
    CADirectory,
    Credential,
    Grid,
    authority,
    certificate,
    end_entity,
    rdn,
    rdns,
    rsa_key,
    signing_policy,
)
from tests.tls.door import HOSTILE, Door

pytestmark = HOSTILE

ROGER = "/C=CA/O=Grid/CN=Roger Impey"
BOB = "/C=CA/O=Grid/CN=Bob"


@pytest.fixture
def roger(grid: Grid) -> Credential:
    return grid.user()


@pytest.fixture
def bob(grid: Grid) -> Credential:
    return end_entity(BOB, grid.ca)


@pytest.mark.parametrize("make", ["proxy", "legacy_proxy", "draft_proxy"])
@pytest.mark.parametrize("identifiers", [True, False])
@pytest_twisted.ensureDeferred
async def test_case_18_in_rogers_name_signed_by_bob(
    door: Door, roger: Credential, bob: Credential, make: str, identifiers: bool
) -> None:
    forged = getattr(roger, make)(signer=bob.key, identifiers=identifiers)
    for send in ([roger], [bob], [roger, bob], [bob, roger], []):
        await door.refuses(forged, send=send)


@pytest.mark.parametrize("make", ["proxy", "legacy_proxy", "draft_proxy"])
@pytest_twisted.ensureDeferred
async def test_case_19_issued_by_bob_named_under_roger(
    door: Door, roger: Credential, bob: Credential, make: str
) -> None:
    name = roger.subject + rdn(("CN", "proxy"))
    forged = getattr(bob, make)(name=name)
    for send in ([bob], [bob, roger]):
        await door.refuses(forged, send=send)


@pytest.mark.parametrize("make", ["proxy", "legacy_proxy", "draft_proxy"])
@pytest_twisted.ensureDeferred
async def test_case_20_another_name_than_one_cn_more(
    door: Door, roger: Credential, make: str
) -> None:
    for added in (
        rdn(("CN", "1")) + rdn(("CN", "proxy")),
        rdn(("OU", "proxy")),
        rdn(("CN", "proxy"), ("OU", "x")),
        rdn(("CN", "proxy"), ("CN", "limited proxy")),
        rdn(("UID", "proxy")),
        b"",
    ):
        await door.refuses(getattr(roger, make)(name=roger.subject + added))


@pytest.mark.parametrize("make", ["proxy", "legacy_proxy", "draft_proxy"])
@pytest_twisted.ensureDeferred
async def test_case_20_a_name_that_is_not_under_the_issuers(
    door: Door, roger: Credential, make: str
) -> None:
    for name in (
        rdns("/C=CA/O=Grid") + rdn(("CN", "proxy")),
        rdns("/O=Grid/C=CA/CN=Roger Impey/CN=proxy"),
        rdn(("CN", "proxy")) + roger.subject,
        rdn(("CN", "proxy")),
    ):
        await door.refuses(getattr(roger, make)(name=name))


@pytest.mark.parametrize("make", ["proxy", "legacy_proxy", "draft_proxy"])
@pytest_twisted.ensureDeferred
async def test_case_21_letter_case_or_blanks_differ(
    door: Door, roger: Credential, make: str
) -> None:
    last = rdn(("CN", "proxy"))
    for other in ("roger impey", "ROGER IMPEY", "Roger  Impey", "Roger Impey ", " Roger Impey"):
        name = rdns("/C=CA/O=Grid") + rdn(("CN", other))
        await door.refuses(getattr(roger, make)(name=name + last))
        await door.refuses(getattr(roger, make)(name=name + last, issuer_name=name))


@pytest_twisted.ensureDeferred
async def test_case_22_self_signed_in_rogers_name(door: Door, roger: Credential) -> None:
    forged = certificate(ROGER, rsa_key("mallory"))
    for credential in (forged, forged.proxy(), forged.legacy_proxy(), forged.draft_proxy()):
        for send in ([forged], [roger], [forged, roger], [roger, forged], [roger, *roger.issuers]):
            await door.refuses(credential, send=send)


@pytest_twisted.ensureDeferred
async def test_case_23_an_unknown_ca_issues_roger(door: Door, grid: Grid) -> None:
    for name in ("/C=XX/CN=Unknown CA", "/C=CA/O=Grid/CN=Test CA"):
        unknown = authority(name, key=rsa_key("unknown"))
        forged = end_entity(ROGER, unknown)
        for credential in (forged, forged.proxy(), forged.legacy_proxy()):
            for send in (credential.sent, credential.issuers, (*credential.issuers, grid.ca)):
                await door.refuses(credential, send=send)


def _second_ca(grid: Grid, *globs: str) -> Credential:
    second = authority("/C=XX/CN=Second CA")
    policy = signing_policy("/C=XX/CN=Second CA", *globs) if globs else None
    CADirectory(grid.directory.path).add(second, policy=policy)
    return second


@pytest_twisted.ensureDeferred
async def test_case_24_a_second_ca_may_not_issue_roger(door: Door, grid: Grid) -> None:
    second = _second_ca(grid, "/C=XX/*")
    door.tls.load()
    forged = end_entity(ROGER, second)
    for credential in (forged, forged.proxy(), forged.legacy_proxy()):
        reason = await door.refuses(credential)
        assert "may not issue" in reason or "grid-proxy-init -rfc" in reason
    own = await door.welcomes(end_entity("/C=XX/CN=Anna", second).proxy())
    assert own.issuer == "/C=XX/CN=Second CA"


@pytest_twisted.ensureDeferred
async def test_case_24_not_through_a_sub_ca_either(door: Door, grid: Grid) -> None:
    """A sub-CA that only the client shows is held to the policy above it."""
    sub = authority("/C=XX/CN=Sub CA", _second_ca(grid, "/C=XX/*"))
    door.tls.load()
    assert "may not issue" in await door.refuses(end_entity(ROGER, sub).proxy())
    await door.welcomes(end_entity("/C=XX/CN=Anna", sub).proxy())


@pytest_twisted.ensureDeferred
async def test_case_24_a_sub_ca_needs_a_name_that_is_allowed(door: Door, grid: Grid) -> None:
    sub = authority("/C=YY/CN=Sub CA", _second_ca(grid, "/C=XX/*"))
    door.tls.load()
    assert "may not issue" in await door.refuses(end_entity("/C=XX/CN=Anna", sub).proxy())


@pytest_twisted.ensureDeferred
async def test_case_24_without_a_policy_the_issuer_tells_them_apart(
    door: Door, grid: Grid, roger: Credential
) -> None:
    second = _second_ca(grid)
    door.tls.load()
    other = await door.welcomes(end_entity(ROGER, second).proxy())
    true = await door.welcomes(roger.proxy())
    assert other.subject == true.subject == ROGER
    assert other.issuer == "/C=XX/CN=Second CA"
    assert true.issuer == "/C=CA/O=Grid/CN=Test CA"


@pytest_twisted.ensureDeferred
async def test_case_24_policies_can_be_required_or_left_out(door: Door, grid: Grid) -> None:
    without, with_policy = _second_ca(grid), grid.user()
    settings = door.tls._settings
    forged = end_entity(ROGER, without)
    door.tls._settings = evolve(settings, signing_policy="require")
    door.tls.load()
    assert "may not issue" in await door.refuses(forged)
    await door.welcomes(with_policy)
    door.tls._settings = evolve(settings, signing_policy="off")
    door.tls.load()
    await door.welcomes(forged)
    await door.welcomes(end_entity("/C=YY/CN=Somebody", grid.ca))


@pytest_twisted.ensureDeferred
async def test_case_24_a_broken_policy_allows_nothing(door: Door, grid: Grid) -> None:
    hashed = grid.directory.add(grid.ca, policy="access_id_CA X509 'unbalanced\n")
    warnings = door.tls.load()
    assert any(f"{hashed}.signing_policy" in warning for warning in warnings)
    assert "may not issue" in await door.refuses(grid.user())
