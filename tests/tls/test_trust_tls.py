"""Cases 48 to 54: what TLS itself could let slip."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from OpenSSL import SSL

import repoman.tls
from repoman.tls import NO_CERTIFICATE, ServerTLS
from tests.credentials import Grid, end_entity, host
from tests.tls.conftest import Log
from tests.tls.door import Door, client_context

ROGER = "/C=CA/O=Grid/CN=Roger Impey"


@pytest_twisted.ensureDeferred
async def test_case_48_other_peoples_certificates_sent_along(door: Door, grid: Grid) -> None:
    roger, anna = grid.user(), grid.user("Anna")
    for send in ([roger, anna], [anna, roger], [anna, anna.proxy(), roger, grid.ca]):
        identity = await door.welcomes(roger.proxy(), send=send)
        assert (identity.subject, identity.proxies) == (ROGER, 1)


@pytest_twisted.ensureDeferred
async def test_case_49_no_session_is_resumed(door: Door, grid: Grid, version: int) -> None:
    """A resumed one would have no verified chain, and no CRL would be looked at."""
    user = grid.user()
    context = client_context(user.proxy(), version=version)
    first = await door.visit(None, context=context)
    session = first.handle.get_session()
    assert first.peer is not None
    assert first.peer.identity is not None
    first.leave()
    grid.revoke(user)
    door.tls.load()
    second = await door.visit(None, context=context, session=session)
    assert second.peer is None or second.peer.identity is None
    assert "certificate revoked" in second.alert


@pytest_twisted.ensureDeferred
async def test_case_49_not_within_a_generation_either(door: Door, grid: Grid, version: int) -> None:
    context = client_context(grid.user().proxy(), version=version)
    first = await door.visit(None, context=context)
    second = await door.visit(None, context=context, session=first.handle.get_session())
    assert second.peer is not None
    assert second.peer.identity is not None
    assert len(second.peer.chain) == 3
    first.leave()
    second.leave()


@pytest_twisted.ensureDeferred
async def test_case_49_a_certificate_without_a_verified_chain_is_nobodys(
    door: Door, grid: Grid, settings: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should a session ever be resumed, then the identity is still gone."""
    monkeypatch.setattr(SSL.Connection, "get_verified_chain", lambda self, **_: None)
    reason = await door.refuses(grid.user().proxy())
    assert "not verified" in reason


@pytest_twisted.ensureDeferred
async def test_case_50_no_certificate_is_anonymous(door: Door, log: Log) -> None:
    visit = await door.visit(None)
    assert visit.peer is not None
    assert visit.peer.identity is None
    assert visit.peer.refusal == NO_CERTIFICATE
    assert (await visit.again()).refusal == NO_CERTIFICATE
    visit.leave()
    assert log.lines == []


@pytest_twisted.ensureDeferred
async def test_case_52_the_callback_raises(
    settings: Any, clock: Any, grid: Grid, version: int, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> bool:
        raise RuntimeError("{braces}\nand lines")

    monkeypatch.setattr(repoman.tls, "_verify_client", broken)
    door = Door(ServerTLS(settings, clock), version)
    door.tls.load()
    await door.open()
    await door.refuses(grid.user().proxy())
    await door.close()
    assert len(log.lines) == 1
    assert "\n" not in log.lines[0]
    assert log.tracebacks == []


@pytest_twisted.ensureDeferred
async def test_case_52_judging_raises(
    door: Door, grid: Grid, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("{oops}")

    monkeypatch.setattr(repoman.tls.Trust, "judge", broken)
    await door.refuses(grid.user().proxy())
    assert len(log.lines) == 1


@pytest_twisted.ensureDeferred
async def test_case_54_a_host_certificate_as_client(door: Door, grid: Grid) -> None:
    identity = await door.welcomes(host(grid.ca, "www.example.org"))
    assert identity.subject == "/C=CA/O=Grid/CN=www.example.org"
    slash = end_entity("/C=CA/O=Grid/CN=placeholder", grid.ca)
    assert (await door.welcomes(slash)).subject == "/C=CA/O=Grid/CN=placeholder"


@pytest_twisted.ensureDeferred
async def test_old_versions_of_tls_are_refused(door: Door, grid: Grid) -> None:
    for version in (SSL.TLS1_VERSION, SSL.TLS1_1_VERSION):
        await door.refuses(grid.user().proxy(), version=version)


@pytest_twisted.ensureDeferred
async def test_no_names_of_cas_are_sent(door: Door, grid: Grid) -> None:
    """A proxy's issuer would never be among them, and strict clients would stay silent."""
    visit = await door.visit(grid.user().proxy())
    assert visit.handle.get_client_ca_list() == []
    visit.leave()


@pytest_twisted.ensureDeferred
async def test_http_2_does_not_appear(door: Door, grid: Grid, version: int) -> None:
    context = client_context(grid.user().proxy(), version=version)
    context.set_alpn_protos([b"h2", b"http/1.1"])
    visit = await door.visit(None, context=context)
    assert visit.handle.get_alpn_proto_negotiated() == b""
    visit.leave()
