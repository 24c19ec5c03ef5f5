"""Cases 13 to 17: what time does to a credential."""

from __future__ import annotations

from datetime import timedelta

import pytest_twisted

from tests.credentials import DAY, HOUR, Grid, authority, end_entity, now
from tests.tls.conftest import Lookout
from tests.tls.door import Door

ROGER = "/C=CA/O=Grid/CN=Roger Impey"


@pytest_twisted.ensureDeferred
async def test_case_13_an_expired_proxy(door: Door, grid: Grid) -> None:
    expired = grid.user().proxy(ends=now() - timedelta(seconds=2))
    assert "certificate expired" in await door.refuses(expired)
    assert "certificate expired" in await door.refuses(expired.proxy())


@pytest_twisted.ensureDeferred
async def test_case_14_a_proxy_of_tomorrow(door: Door, grid: Grid) -> None:
    future = grid.user().proxy(begins=now() + HOUR)
    await door.refuses(future)
    await door.refuses(future.proxy())
    await door.refuses(grid.user(begins=now() + HOUR).proxy())


@pytest_twisted.ensureDeferred
async def test_case_15_a_proxy_of_an_expired_end_entity(door: Door, grid: Grid) -> None:
    expired = grid.user(ends=now() - HOUR)
    for credential in (expired, expired.proxy(), expired.proxy().proxy()):
        assert "certificate expired" in await door.refuses(credential)


@pytest_twisted.ensureDeferred
async def test_case_15_a_proxy_below_an_expired_sub_ca(door: Door, grid: Grid) -> None:
    sub = authority("/C=CA/O=Grid/CN=Sub CA", grid.ca, ends=now() - HOUR)
    await door.refuses(end_entity(ROGER, sub).proxy())


@pytest_twisted.ensureDeferred
async def test_case_16_a_proxy_ends_with_its_end_entity(door: Door, grid: Grid) -> None:
    soon = now() + HOUR
    identity = await door.welcomes(grid.user(ends=soon).proxy(ends=soon + DAY))
    assert identity.not_after == soon
    identity = await door.welcomes(grid.user().proxy(ends=soon).proxy(ends=soon + DAY))
    assert identity.not_after == soon


@pytest_twisted.ensureDeferred
async def test_case_17_expires_during_keep_alive(door: Door, grid: Grid, clock: Lookout) -> None:
    ends = now() + HOUR
    visit = await door.visit(grid.user().proxy(ends=ends))
    assert (await visit.again()).identity is not None
    clock.ahead = timedelta(minutes=59)
    assert (await visit.again()).identity is not None
    clock.ahead = timedelta(minutes=61)
    peer = await visit.again()
    assert peer.identity is None
    assert peer.refusal.startswith(
        f"Your proxy expired at {ends:%Y-%m-%d %H:%M} UTC; make a new one with grid-proxy-init."
    )
    assert visit.closing
    visit.leave()


@pytest_twisted.ensureDeferred
async def test_case_17_the_end_entity_expires_first(door: Door, grid: Grid, clock: Lookout) -> None:
    visit = await door.visit(grid.user(ends=now() + HOUR).proxy())
    clock.ahead = 2 * HOUR
    assert "Your certificate expired at" in (await visit.again()).refusal
    visit.leave()
