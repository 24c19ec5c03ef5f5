"""Loading and loading again: what is in use, what is said, and what happens when it fails."""

from __future__ import annotations

import gc
import weakref

import pytest
import pytest_twisted
from attrs import evolve
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from repoman.errors import TrustUnreadable
from repoman.tls import ServerTLS, TlsSettings
from tests.credentials import (
    CADirectory,
    Grid,
    authority,
    crl,
    host,
    name_hash,
    rsa_key,
)
from tests.tls.conftest import Lookout
from tests.tls.door import Door

ROGER = "/C=CA/O=Grid/CN=Roger Impey"


@pytest.fixture
def version() -> int:
    return SSL.TLS1_3_VERSION


def test_the_names_of_the_host(settings: TlsSettings, clock: Lookout, grid: Grid) -> None:
    tls = ServerTLS(settings, clock)
    assert tls.host_names == ()
    assert tls.load() == []
    assert tls.host_names == ("localhost", "127.0.0.1")


def test_generations_are_counted(settings: TlsSettings, clock: Lookout) -> None:
    tls = ServerTLS(settings, clock)
    for generation in range(3):
        assert tls.generation == generation
        tls.load()


def _broken(grid: Grid, settings: TlsSettings) -> dict[str, tuple[TlsSettings, str]]:
    empty = grid.place / "empty"
    empty.mkdir()
    weak = host(grid.ca, "localhost", key=rsa_key("small", 1024))
    weak.write_pair(grid.place / "weak.pem", grid.place / "weak.key")
    nowhere = grid.place / "nowhere"
    return {
        "no directory": (evolve(settings, ca_directory=nowhere), "nowhere cannot be read"),
        "no CA": (evolve(settings, ca_directory=empty), "holds no certificate authority"),
        "no certificate": (evolve(settings, certificate=nowhere), "nowhere cannot be read"),
        "no key": (evolve(settings, key=nowhere), "nowhere cannot be read"),
        "swapped": (
            evolve(settings, certificate=settings.key, key=settings.certificate),
            "holds no certificate",
        ),
        "weak": (
            evolve(settings, certificate=grid.place / "weak.pem", key=grid.place / "weak.key"),
            "too small",
        ),
    }


BROKEN = ["no directory", "no CA", "no certificate", "no key", "swapped", "weak"]


@pytest.mark.parametrize("what", BROKEN)
@pytest_twisted.ensureDeferred
async def test_a_load_that_fails_keeps_the_old_state(
    door: Door, grid: Grid, settings: TlsSettings, what: str
) -> None:
    broken, reason = _broken(grid, settings)[what]
    kept = await door.visit(grid.user().proxy())
    door.tls._settings = broken
    with pytest.raises(TrustUnreadable, match=reason):
        door.tls.load()
    assert door.tls.generation == 1
    assert door.tls.host_names == ("localhost", "127.0.0.1")
    assert (await kept.again()).identity is not None
    assert (await door.welcomes(grid.user().proxy())).subject == ROGER
    kept.leave()


def test_a_failed_load_is_tried_again(settings: TlsSettings, clock: Lookout) -> None:
    tls = ServerTLS(settings, clock)
    tls.load()
    key = settings.key.read_bytes()
    settings.key.write_bytes(b"half a key")
    for _ in range(2):
        assert tls.changed()
        with pytest.raises(TrustUnreadable):
            tls.load()
    settings.key.write_bytes(key)
    tls.load()
    assert not tls.changed()


@pytest.mark.parametrize("what", BROKEN)
def test_nothing_starts_with_it_either(
    grid: Grid, settings: TlsSettings, clock: Lookout, what: str
) -> None:
    broken, reason = _broken(grid, settings)[what]
    with pytest.raises(TrustUnreadable, match=reason):
        ServerTLS(broken, clock).load()


@pytest_twisted.ensureDeferred
async def test_before_the_first_load_nobody_gets_in(
    settings: TlsSettings, clock: Lookout, grid: Grid
) -> None:
    door = Door(ServerTLS(settings, clock))
    await door.open()
    await door.refuses(grid.user().proxy())
    await door.close()


@pytest_twisted.ensureDeferred
async def test_a_new_host_certificate(door: Door, grid: Grid) -> None:
    before = await door.visit(None)
    grid.host("www.example.org")
    assert door.tls.changed()
    door.tls.load()
    assert not door.tls.changed()
    assert door.tls.host_names == ("www.example.org",)
    after = await door.visit(None)
    old = before.handle.get_peer_certificate(as_cryptography=True)
    new = after.handle.get_peer_certificate(as_cryptography=True)
    assert old.serial_number != new.serial_number
    before.leave()
    after.leave()


@pytest_twisted.ensureDeferred
async def test_the_sub_cas_of_the_host_are_sent(door: Door, grid: Grid) -> None:
    sub = authority("/C=CA/O=Grid/CN=Sub CA", grid.ca)
    host(sub, "localhost").write_pair(grid.place / "hostcert.pem", grid.place / "hostkey.pem")
    door.tls.load()
    visit = await door.visit(None)
    chain = visit.handle.get_peer_cert_chain(as_cryptography=True)
    assert chain[1].subject == sub.certificate.subject
    visit.leave()


@pytest_twisted.ensureDeferred
async def test_reload_lets_others_be_served(door: Door, grid: Grid) -> None:
    for number in range(20):
        other = authority(f"/C=XX/CN=CA {number}", key=rsa_key("others"))
        CADirectory(grid.directory.path).add(other, revokes=crl(other, range(100, 2000)))
    turns = []
    reloading = Deferred.fromCoroutine(door.tls.reload(reactor))
    reloading.addCallback(turns.append)
    assert (await door.welcomes(grid.user().proxy())).subject == ROGER
    assert turns == []
    await reloading
    assert turns == [[]]
    assert door.tls.generation == 2


@pytest_twisted.ensureDeferred
async def test_of_two_reloads_at_once_the_later_counts(door: Door, grid: Grid) -> None:
    user = grid.user()
    first = Deferred.fromCoroutine(door.tls.reload(reactor))
    grid.revoke(user)
    door.tls.load()
    await gatherResults([first])
    assert door.tls.generation == 3
    await door.refuses(user.proxy())
    assert not door.tls.changed()


@pytest_twisted.ensureDeferred
async def test_a_refused_connection_may_be_welcome_after_a_reload(door: Door, grid: Grid) -> None:
    """What made it refused was mended on the server: a missing CRL, here."""
    door.tls._settings = evolve(door.tls._settings, crl="require")
    path = grid.directory.path / f"{name_hash(grid.ca)}.r0"
    content = path.read_bytes()
    path.unlink()
    door.tls.load()
    kept = await door.visit(grid.user().proxy())
    assert kept.peer is not None
    assert "There is no CRL" in kept.peer.refusal
    path.write_bytes(content)
    door.tls.load()
    assert (await kept.again()).identity is not None
    kept.leave()


@pytest_twisted.ensureDeferred
async def test_an_anonymous_connection_stays_anonymous(door: Door) -> None:
    kept = await door.visit(None)
    door.tls.load()
    assert (await kept.again()).identity is None
    kept.leave()


@pytest_twisted.ensureDeferred
async def test_nothing_is_left_of_connections_that_are_gone(door: Door, grid: Grid) -> None:
    visit = await door.visit(grid.user().proxy())
    handle = weakref.ref(next(iter(door.site._channels)).transport.getHandle())
    assert handle() is not None
    visit.leave()
    waiting: Deferred[None] = Deferred()
    reactor.callLater(0.1, waiting.callback, None)
    await waiting
    gc.collect()
    assert handle() is None


def test_the_client_cannot_choose_weak_ciphers(settings: TlsSettings, clock: Lookout) -> None:
    """Without forward secrecy a stolen host key would open what was recorded before."""
    tls = ServerTLS(settings, clock)
    tls.load()
    offered = tls.serverConnectionForTLS(None).get_cipher_list()
    assert offered
    assert all(name.startswith(("TLS_", "ECDHE-")) for name in offered)
