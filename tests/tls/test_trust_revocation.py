"""Cases 40 to 43: CRLs, in each mode, and their renewal without a restart."""

from __future__ import annotations

from datetime import timedelta

import pytest
import pytest_twisted
from attrs import evolve

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
from tests.tls.conftest import Lookout
from tests.tls.door import Door

ROGER = "/C=CA/O=Grid/CN=Roger Impey"
MODES = ["require", "if-present", "off"]


def set_mode(door: Door, mode: str) -> list[str]:
    door.tls._settings = evolve(door.tls._settings, crl=mode)
    return door.tls.load()


@pytest_twisted.ensureDeferred
async def test_case_40_revoked_directly_and_behind_proxies(door: Door, grid: Grid) -> None:
    user, other = grid.user(), grid.user("Anna")
    grid.revoke(user)
    door.tls.load()
    for credential in (user, user.proxy(), user.proxy().proxy()):
        assert "certificate revoked" in await door.refuses(credential)
    await door.welcomes(other.proxy().proxy())


@pytest_twisted.ensureDeferred
async def test_case_40_a_revoked_sub_ca(door: Door, grid: Grid) -> None:
    sub = authority("/C=CA/O=Grid/CN=Sub CA", grid.ca)
    grid.directory.add(sub)
    grid.revoke(sub)
    door.tls.load()
    user = end_entity(ROGER, sub)
    for credential in (user, user.proxy(), user.proxy().proxy()):
        assert "certificate revoked" in await door.refuses(credential)


@pytest_twisted.ensureDeferred
async def test_case_40_a_serial_number_of_a_proxy_says_nothing(door: Door, grid: Grid) -> None:
    """Proxies reuse their issuer's; a CRL of the CA is not about them."""
    user, revoked = grid.user(), grid.user("Revoked")
    grid.revoke(revoked)
    door.tls.load()
    await door.welcomes(user.proxy(serial=revoked.serial))


class TestOldProxies:
    @pytest.fixture
    def legacy(self) -> bool:
        return True

    @pytest_twisted.ensureDeferred
    async def test_case_40_revoked_behind_old_proxies(self, door: Door, grid: Grid) -> None:
        user = grid.user()
        await door.welcomes(user.legacy_proxy())
        grid.revoke(user)
        door.tls.load()
        for credential in (user.legacy_proxy().legacy_proxy(), user.draft_proxy()):
            await door.refuses(credential)


GARBAGE = b"-----BEGIN X509 CRL-----\nMIIBroken\n-----END X509 CRL-----\n"

# What a CA's CRL file may be, and the modes in which people are let in with it.
CRLS = {
    "good": (lambda ca: crl(ca), {"require", "if-present", "off"}),
    "missing": (lambda ca: None, {"if-present", "off"}),
    "expired": (lambda ca: crl(ca, begins=now() - 9 * DAY, ends=now() - HOUR), {"off"}),
    "future": (lambda ca: crl(ca, begins=now() + HOUR), {"off"}),
    "broken": (lambda ca: GARBAGE, {"off"}),
    "empty": (lambda ca: b"\n", {"off"}),
    "cut off": (lambda ca: crl(ca)[:300], {"off"}),
    "wrongly signed": (lambda ca: crl(ca, key=rsa_key("mallory")), {"off"}),
    "another CA's": (lambda ca: crl(authority("/C=XX/CN=Other")), {"off"}),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("state", CRLS)
@pytest_twisted.ensureDeferred
async def test_case_41_states_of_a_crl(door: Door, grid: Grid, state: str, mode: str) -> None:
    make, good_in = CRLS[state]
    user = grid.user()
    path = grid.directory.path / f"{name_hash(grid.ca)}.r0"
    path.unlink()
    content = make(grid.ca)
    if content is not None:
        path.write_bytes(content)
    warnings = set_mode(door, mode)
    for credential in (user, user.proxy(), user.proxy().proxy()):
        if mode in good_in:
            await door.welcomes(credential)
        else:
            await door.refuses(credential)
    told = any(path.name in warning for warning in warnings)
    assert told == (state not in ("good", "missing")) or mode == "off"


@pytest.mark.parametrize("mode", MODES)
@pytest_twisted.ensureDeferred
async def test_case_41_the_crl_of_the_sub_ca_is_missing(door: Door, grid: Grid, mode: str) -> None:
    sub = authority("/C=CA/O=Grid/CN=Sub CA", grid.ca)
    grid.directory.add(sub, revokes=None)
    set_mode(door, mode)
    proxy = end_entity(ROGER, sub).proxy()
    if mode == "require":
        assert "There is no CRL of the certificate authority /C=CA/O=Grid/CN=Sub CA" in (
            await door.refuses(proxy)
        )
    else:
        await door.welcomes(proxy)


@pytest_twisted.ensureDeferred
async def test_case_41_of_two_files_the_good_one_counts(door: Door, grid: Grid) -> None:
    hashed, user = name_hash(grid.ca), grid.user()
    (grid.directory.path / f"{hashed}.r1").write_bytes(b"broken")
    assert any(f"{hashed}.r1" in warning for warning in set_mode(door, "require"))
    await door.welcomes(user.proxy())
    (grid.directory.path / f"{hashed}.r1").write_bytes(crl(grid.ca, [user]))
    door.tls.load()
    await door.refuses(user.proxy())


@pytest.mark.parametrize("credential", ["end entity", "proxy", "two proxies"])
@pytest_twisted.ensureDeferred
async def test_case_42_a_new_crl_counts_without_a_restart(
    door: Door, grid: Grid, credential: str
) -> None:
    user = grid.user()
    shown = {"end entity": user, "proxy": user.proxy(), "two proxies": user.proxy().proxy()}
    kept = await door.visit(shown[credential])
    assert (await kept.again()).identity is not None
    grid.revoke(user)
    assert (await kept.again()).identity is not None
    door.tls.load()
    peer = await kept.again()
    assert peer.identity is None
    assert f"{ROGER} was revoked by /C=CA/O=Grid/CN=Test CA" in peer.refusal
    assert f"{ROGER} was revoked by /C=CA/O=Grid/CN=Test CA" in kept.text
    assert kept.closing
    await door.refuses(shown[credential])
    kept.leave()


@pytest_twisted.ensureDeferred
async def test_case_42_others_go_on_across_a_reload(door: Door, grid: Grid) -> None:
    kept = await door.visit(grid.user("Anna").proxy())
    grid.revoke(grid.user())
    door.tls.load()
    assert (await kept.again()).identity is not None
    kept.leave()


@pytest_twisted.ensureDeferred
async def test_case_42_a_ca_that_is_gone(door: Door, grid: Grid) -> None:
    other = authority("/C=XX/CN=Other")
    grid.directory.add(other)
    door.tls.load()
    user = end_entity("/C=XX/CN=Anna", other)
    kept = await door.visit(user.proxy())
    (grid.directory.path / f"{name_hash(other)}.0").unlink()
    door.tls.load()
    assert "/C=XX/CN=Other is not trusted here" in (await kept.again()).refusal
    assert "unknown ca" in await door.refuses(user.proxy())
    kept.leave()


@pytest_twisted.ensureDeferred
async def test_case_42_a_crl_that_expires_during_keep_alive(
    door: Door, grid: Grid, clock: Lookout
) -> None:
    path = grid.directory.path / f"{name_hash(grid.ca)}.r0"
    path.write_bytes(crl(grid.ca, ends=now() + HOUR))
    door.tls.load()
    kept = await door.visit(grid.user().proxy())
    clock.ahead = timedelta(minutes=59)
    assert (await kept.again()).identity is not None
    clock.ahead = timedelta(minutes=61)
    assert "expired" in (await kept.again()).refusal
    assert kept.closing
    path.write_bytes(crl(grid.ca, ends=now() + DAY))
    door.tls.load()
    await door.welcomes(grid.user().proxy())


@pytest.mark.parametrize("mode", MODES)
@pytest_twisted.ensureDeferred
async def test_case_43_good_proxies_under_full_crl_checking(
    door: Door, grid: Grid, mode: str
) -> None:
    """Pins how OpenSSL applies CRLs to proxies; its issue 32364 may change that."""
    set_mode(door, mode)
    sub = authority("/C=CA/O=Grid/CN=Sub CA", grid.ca)
    grid.directory.add(sub)
    door.tls.load()
    credential: Credential
    for credential in (grid.user(), end_entity(ROGER, sub)):
        for _ in range(3):
            await door.welcomes(credential)
            credential = credential.proxy()
