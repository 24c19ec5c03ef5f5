"""Cases 44 to 47: weak keys, long chains, big messages, and doors left half open."""

from __future__ import annotations

from datetime import timedelta

import pytest
import pytest_twisted

from repoman.bounded_log import LINES_A_MINUTE
from tests.credentials import (
    CADirectory,
    Extension,
    Grid,
    authority,
    end_entity,
    octets,
    rsa_key,
)
from tests.tls.conftest import Log, Lookout
from tests.tls.door import HOSTILE, Door

pytestmark = HOSTILE

ROGER = "/C=CA/O=Grid/CN=Roger Impey"


@pytest_twisted.ensureDeferred
async def test_case_44_small_keys(door: Door, grid: Grid) -> None:
    small = rsa_key("small", 1024)
    weak = grid.user(key=small)
    for credential in (weak, weak.proxy(), weak.legacy_proxy()):
        await door.refuses(credential)
    user = grid.user()
    for make in ("proxy", "legacy_proxy"):
        await door.refuses(getattr(user, make)(key=small))
        await door.refuses(getattr(getattr(user, make)(key=small), make)())
    weak_ca = authority("/C=CA/O=Grid/CN=Weak CA", grid.ca, key=small)
    await door.refuses(end_entity(ROGER, weak_ca).proxy())


@pytest.mark.parametrize("digest", ["sha1", "md5"])
@pytest_twisted.ensureDeferred
async def test_case_44_weak_digests(door: Door, grid: Grid, digest: str) -> None:
    weak = grid.user(digest=digest)
    for credential in (weak, weak.proxy(), weak.legacy_proxy()):
        await door.refuses(credential)
    user = grid.user()
    for make in ("proxy", "legacy_proxy", "draft_proxy"):
        await door.refuses(getattr(user, make)(digest=digest))
        await door.refuses(getattr(getattr(user, make)(digest=digest), make)())
    sub = authority("/C=CA/O=Grid/CN=Sub CA", grid.ca, digest=digest)
    await door.refuses(end_entity(ROGER, sub).proxy())


@pytest_twisted.ensureDeferred
async def test_case_44_a_root_signed_with_sha1_is_fine(door: Door, grid: Grid) -> None:
    """Nobody needs a root's own signature."""
    old = authority("/C=XX/CN=Old CA", digest="sha1")
    CADirectory(grid.directory.path).add(old)
    door.tls.load()
    await door.welcomes(end_entity("/C=XX/CN=Anna", old).proxy())


@pytest_twisted.ensureDeferred
async def test_case_45_nine_proxies(door: Door, grid: Grid) -> None:
    for make in ("proxy", "legacy_proxy"):
        credential = grid.user()
        for _ in range(9):
            credential = getattr(credential, make)()
        await door.refuses(credential)
        for _ in range(20):
            credential = getattr(credential, make)()
        # In the handshake: nobody makes us verify so many signatures.
        assert "alert" in await door.refuses(credential)


@pytest_twisted.ensureDeferred
async def test_case_46_a_certificate_message_of_more_than_100_kb(
    door: Door, grid: Grid, log: Log, clock: Lookout
) -> None:
    clock.begin_a_minute()
    big = grid.user().proxy(more=[Extension("1.2.3.4", octets(bytes(110_000)))])
    many = grid.user().proxy()
    for _ in range(LINES_A_MINUTE):
        await door.refuses(big)
        await door.refuses(many, send=many.sent * 200)
    await door.welcomes(many)
    assert len(log.lines) == LINES_A_MINUTE
    assert max(map(len, log.lines)) < 200


@pytest_twisted.ensureDeferred
async def test_case_46_the_log_says_how_much_it_left_out(
    door: Door, grid: Grid, log: Log, clock: Lookout
) -> None:
    impostor = grid.user().proxy(limited=True).proxy()
    clock.begin_a_minute()
    for _ in range(LINES_A_MINUTE + 5):
        await door.refuses(impostor)
    assert len(log.lines) == LINES_A_MINUTE
    clock.ahead += timedelta(minutes=2)
    await door.refuses(impostor)
    assert log.lines[LINES_A_MINUTE] == "5 more such lines were left out"
    assert len(log.lines) == LINES_A_MINUTE + 2
