"""What an upload promises: nothing is sent that is not wanted, and a refusal is heard."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from repoman import errors
from repoman.client import sending
from repoman.client.credentials import CredentialFiles
from repoman.client.repository import RepositoryClient
from repoman.model import ImageRef
from tests.client.conftest import make_client
from tests.client.scripted import CLOSE, SILENCE, Asked, ScriptedServer, problem, reply, whole
from tests.credentials import Grid

CONTENT = random.Random(2).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
REF = ImageRef("roger", "base.img")
PUT = "PUT /api/images/raw/roger/base.img"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "disk.img").write_bytes(CONTENT)
    return tmp_path / "disk.img"


@pytest_twisted.ensureDeferred
async def test_the_bytes_arrive_and_their_digest_is_known(
    server: ScriptedServer, client: RepositoryClient, source: Path
) -> None:
    server.scripts[PUT] = whole(lambda _: reply(200) + CLOSE)
    assert await client.put_file(REF, source) == SHA256
    assert server.asked[0].body == CONTENT
    assert server.asked[0].headers["expect"] == "100-continue"
    assert "json" in server.asked[0].headers["accept"]


@pytest_twisted.ensureDeferred
async def test_who_is_interrupted_while_a_name_is_looked_up_does_not_try_again(
    client: RepositoryClient,
) -> None:
    # Twisted itself would say DNSLookupError, which passes, so that Ctrl-C was forgotten.
    connecting = client._exchange.endpoint().connect(Factory.forProtocol(Protocol))
    connecting.cancel()
    with pytest.raises(CancelledError):
        await connecting


@pytest_twisted.ensureDeferred
async def test_a_server_that_keeps_the_connection_does_not_hold_us_up(
    server: ScriptedServer, client: RepositoryClient, source: Path
) -> None:
    server.scripts[PUT] = whole(lambda _: reply(200, b"{}"))
    assert await client.put_file(REF, source) == SHA256


@pytest_twisted.ensureDeferred
async def test_an_empty_file_can_be_sent(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    server.scripts[PUT] = whole(lambda _: reply(200) + CLOSE)
    assert await client.put_file(REF, tmp_path / "empty") == hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize("end", [CLOSE, b""])
@pytest_twisted.ensureDeferred
async def test_a_refusal_comes_before_the_first_byte(
    server: ScriptedServer, client: RepositoryClient, source: Path, end: bytes
) -> None:
    answer = problem("QuotaExceeded", 413, "No room for 3000000 bytes.")
    server.scripts[PUT] = lambda _: answer + end
    with pytest.raises(errors.QuotaExceeded, match="No room"):
        await client.put_file(REF, source)
    assert server.received == 0


@pytest_twisted.ensureDeferred
async def test_a_refusal_in_chunks_is_understood(
    server: ScriptedServer, client: RepositoryClient, source: Path
) -> None:
    head = b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n"
    server.scripts[PUT] = lambda _: head + b"5\r\nNot y\r\n5\r\nours.\r\n0\r\n\r\n"
    with pytest.raises(errors.Refused, match=r"Not yours\."):
        await client.put_file(REF, source)


@pytest_twisted.ensureDeferred
async def test_an_answer_in_mid_body_stops_the_sending(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(2**30)
    leave = b"HTTP/1.1 100 Continue\r\n\r\n"
    server.scripts[PUT] = lambda _: leave + problem("NoRoom", 507, "The disk is full.")
    with pytest.raises(errors.NoRoom, match="disk is full"):
        await client.put_file(REF, big)
    assert server.received < 2**26


@pytest_twisted.ensureDeferred
async def test_the_beginning_of_an_answer_stops_the_sending(
    grid: Grid, proxy: CredentialFiles, server: ScriptedServer, tmp_path: Path
) -> None:
    client = make_client(grid, proxy, server.url, stall_seconds=1.0)
    with (tmp_path / "big").open("wb") as file:
        file.truncate(2**30)
    answer = b"HTTP/1.1 100 Continue\r\n\r\n" + problem("NoRoom", 507, "The disk is full.")
    server.scripts[PUT] = lambda _: answer[:-10]
    reactor.callLater(0.8, server.send, answer[-10:])
    with pytest.raises(errors.NoRoom, match="disk is full"):
        await client.put_file(REF, tmp_path / "big")
    assert server.received < 2**25


@pytest_twisted.ensureDeferred
async def test_a_success_before_the_end_is_none(
    server: ScriptedServer, client: RepositoryClient, source: Path
) -> None:
    server.scripts[PUT] = lambda _: reply(200)
    with pytest.raises(errors.BadReply, match="before all of it was sent"):
        await client.put_file(REF, source)


@pytest_twisted.ensureDeferred
async def test_a_server_that_knows_no_expectation_is_sent_to_after_a_while(
    server: ScriptedServer, client: RepositoryClient, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "CONTINUE_SECONDS", 0.1)
    server.scripts[PUT] = whole(lambda _: reply(200) + CLOSE)
    server.says_continue = False
    assert await client.put_file(REF, source) == SHA256


@pytest_twisted.ensureDeferred
async def test_a_leave_that_comes_late_and_in_pieces_stops_nothing(
    server: ScriptedServer,
    client: RepositoryClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sending, "CONTINUE_SECONDS", 0.1)
    (tmp_path / "big").touch()
    os.truncate(tmp_path / "big", 2**26)

    def leave_late(asked: Asked) -> bytes:
        transport = server._connections[-1].transport
        transport.pauseProducing()
        reactor.callLater(0.3, server.send, b"HTTP/1.1 1")
        reactor.callLater(0.5, server.send, b"00 Continue\r\n\r\n")
        reactor.callLater(0.7, transport.resumeProducing)
        return SILENCE

    server.scripts[PUT] = leave_late
    running = Deferred.fromCoroutine(client.put_file(REF, tmp_path / "big"))
    for _ in range(400):
        await deferLater(reactor, 0.01)
        if server.received == 2**26:
            server.send(reply(200))
            break
    await running


@pytest_twisted.ensureDeferred
async def test_a_broken_line_is_tried_again(
    server: ScriptedServer, client: RepositoryClient, source: Path
) -> None:
    server.scripts[PUT] = [lambda _: CLOSE, whole(lambda _: reply(200) + CLOSE)]
    assert await client.put_file(REF, source) == SHA256


@pytest_twisted.ensureDeferred
async def test_a_server_that_takes_nothing_is_left(
    grid: Grid, proxy: CredentialFiles, server: ScriptedServer, source: Path
) -> None:
    client = make_client(grid, proxy, server.url, stall_seconds=0.3)
    with source.open("ab") as file:
        file.truncate(2**28)

    def stop_reading(asked: Asked) -> bytes:
        for connection in server._connections:
            connection.transport.pauseProducing()
        return b"HTTP/1.1 100 Continue\r\n\r\n"

    server.scripts[PUT] = stop_reading
    with pytest.raises(errors.ConnectionProblem, match="said nothing"):
        await client.put_file(REF, source)


@pytest_twisted.ensureDeferred
async def test_a_redirect_is_not_followed(
    server: ScriptedServer, client: RepositoryClient, source: Path
) -> None:
    server.scripts[PUT] = lambda _: reply(307, Location="https://example.org/") + CLOSE
    with pytest.raises(errors.BadReply, match="elsewhere"):
        await client.put_file(REF, source)
    assert server.received == 0


@pytest_twisted.ensureDeferred
async def test_a_file_that_shrinks_meanwhile_is_an_error(
    server: ScriptedServer, client: RepositoryClient, source: Path
) -> None:
    def shrink(asked: Asked) -> bytes:
        os.truncate(source, 1000)
        return b"HTTP/1.1 100 Continue\r\n\r\n"

    server.scripts[PUT] = shrink
    with pytest.raises(errors.LengthMismatch, match="shorter"):
        await client.put_file(REF, source)


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo"])
@pytest_twisted.ensureDeferred
async def test_what_is_no_file_is_not_sent(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "thing"
    if kind == "directory":
        path.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    with pytest.raises((errors.Invalid, FileNotFoundError)):
        await client.put_file(REF, path)
    assert server.asked == []
