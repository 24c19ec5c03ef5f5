"""What is odd in the CA directory keeps nobody out, and no revocation from taking effect."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_twisted
from twisted.internet import reactor

from repoman.tls import ClientTLS, ServerTLS, TlsSettings
from tests.credentials import Grid
from tests.odd_files import ALL
from tests.tls.conftest import Lookout
from tests.tls.door import Door

ROGER = "/C=CA/O=Grid/CN=Roger Impey"

TRIED = [
    "CA: a brainpool key",
    "CA: explicit parameters",
    "CA: an unknown kind of key",
    "CA: RSA with exponent 1",
    "CA: RSA of 16384 bits",
    "CA: serial number 0",
    "CA: a name that is too long",
    "CA: a good one after garbage",
    "CA: another of the same name",
    "entry: a FIFO",
    "entry: a huge file",
    "entry: a name that is no text",
    "CRL: an unknown critical extension",
    "CRL: another's signature",
    "CRL: another's signature, beside the right one",
]


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module=r"repoman\.")
        yield


@pytest_twisted.async_yield_fixture
async def door(settings: TlsSettings, clock: Lookout, version: int) -> AsyncIterator[Door]:
    """A server that has not loaded anything yet."""
    door = Door(ServerTLS(settings, clock), version)
    await door.open()
    yield door
    await door.close()


@pytest.mark.parametrize("what", TRIED)
@pytest_twisted.ensureDeferred
async def test_an_odd_file_stops_no_start_no_reload_no_revocation_and_no_client(
    door: Door, grid: Grid, what: str
) -> None:
    odd, user = ALL[what], grid.user()
    name = odd.into(grid)
    assert bool([line for line in door.tls.load() if name in line]) == odd.told
    assert (await door.welcomes(user.proxy())).subject == ROGER
    kept = await door.visit(user.proxy())
    ClientTLS(None, grid.directory.path)
    grid.revoke(user)
    assert bool(await door.tls.reload(reactor)) == odd.told
    assert (await kept.again()).identity is None
    kept.leave()
    await door.refuses(user.proxy())
    assert (await door.welcomes(grid.user("Anna").proxy())).subject.endswith("Anna")
