"""What a download promises that the repository sends to its store: the same bytes, or its own."""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from repoman import errors
from repoman.client import ranges
from repoman.client.credentials import CredentialFiles
from repoman.client.repository import RepositoryClient
from repoman.model import ImageRef
from tests.client.conftest import make_client
from tests.client.scripted import (
    CLOSE,
    SILENCE,
    Asked,
    Script,
    ScriptedServer,
    problem,
    reply,
    repr_digest,
    serve_file,
)
from tests.credentials import Grid, authority

CONTENT = random.Random(9).randbytes(1_000_000)
REF = ImageRef("roger", "base.img")
PATH = "/api/images/raw/roger/base.img"
KEY = "/bucket/data/ab/abcd"
SIGNED = f"{KEY}?X-Amz-Signature=0123%2Fabc&x=a%20b"
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'


async def listening(certificates: Grid) -> ScriptedServer:
    """A store with its bytes, and with the certificate of one grid or another."""
    store = ScriptedServer()
    place = certificates.place
    await store.start(reactor, place / "hostcert.pem", place / "hostkey.pem")
    store.scripts[f"GET {KEY}"] = stored()
    return store


@pytest_twisted.async_yield_fixture
async def store(grid: Grid) -> AsyncIterator[ScriptedServer]:
    store = await listening(grid)
    yield store
    await store.stop()


@pytest.fixture
def sending(server: ScriptedServer, store: ScriptedServer) -> ScriptedServer:
    """A repository that sends its clients to the store."""
    server.scripts[f"GET {PATH}"] = sends_to(store.url + SIGNED)
    server.scripts[f"HEAD {PATH}"] = serve_file(CONTENT, Accept_Ranges="bytes")
    return server


def sends_to(location: str, **lies: Any) -> Script:
    """Says where the bytes are, but serves who does not take that."""

    def script(asked: Asked) -> bytes:
        if asked.headers.get("prefer") != "redirect":
            return stored(ETag=ETAG, Repr_Digest=repr_digest(CONTENT))(asked)
        headers = {"ETag": ETAG, "Repr-Digest": repr_digest(CONTENT), **lies}
        return reply(307, b"Elsewhere.\n", Location=location, **headers)

    return script


def stored(content: bytes = CONTENT, **headers: Any) -> Script:
    """A store's honest reply: it knows the object by an ETag of its own, and ranges."""

    def script(asked: Asked) -> bytes:
        known = {"ETag": '"of-the-store-7"', **headers}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("range", ""))
        if span is None:
            return reply(200, content, **known)
        start, last = int(span[1]), int(span[2] or len(content) - 1)
        known["Content-Range"] = f"bytes {start}-{last}/{len(content)}"
        return reply(206, content[start : last + 1], **known)

    return script


def cut_after(count: int) -> Script:
    def script(asked: Asked) -> bytes:
        head, _, body = stored()(asked).partition(b"\r\n\r\n")
        return head + b"\r\n\r\n" + body[:count] + CLOSE

    return script


@pytest_twisted.ensureDeferred
async def test_the_bytes_come_from_the_store_that_learns_nothing_of_the_user(
    sending: ScriptedServer, store: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    fetched = await client.get_file(REF, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert (fetched.size, fetched.etag) == (len(CONTENT), ETAG)
    assert len(sending.shown) == len(sending.asked) == 2
    assert store.shown == []
    assert [asked.path for asked in store.asked] == [SIGNED]
    assert store.asked[0].headers.keys() <= {
        "host", "user-agent", "accept", "accept-encoding", "connection",
    }  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_a_broken_line_is_resumed_by_a_new_address(
    sending: ScriptedServer, store: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    store.scripts[f"GET {KEY}"] = [cut_after(300_000), stored()]
    await client.get_file(REF, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert [asked.headers.get("range") for asked in store.asked] == [None, "bytes=300000-"]
    assert [asked.method for asked in sending.asked] == ["HEAD", "GET", "HEAD", "GET"]
    assert "if-range" not in store.asked[1].headers


@pytest_twisted.ensureDeferred
async def test_over_many_connections_one_address_serves_for_all(
    sending: ScriptedServer,
    store: ScriptedServer,
    client: RepositoryClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranges, "RANGE", 50_000)
    await client.get_file(REF, tmp_path / "out", streams=3)
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert len(store.asked) == 20
    assert len(sending.asked) <= 1 + 3  # HEAD, and what was asked before anybody knew


@pytest_twisted.ensureDeferred
async def test_an_address_whose_time_is_over_is_asked_for_anew(
    sending: ScriptedServer,
    store: ScriptedServer,
    client: RepositoryClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranges, "RANGE", 50_000)
    served = [0]

    def expiring(asked: Asked) -> bytes:
        served[0] += 1
        return reply(403, b"<Error/>") if served[0] == 9 else stored()(asked)

    store.scripts[f"GET {KEY}"] = expiring
    await client.get_file(REF, tmp_path / "out", streams=2)
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert len(store.asked) == 21
    assert all(asked.headers.get("prefer") in (None, "redirect") for asked in sending.asked)


@pytest.mark.parametrize(
    "location",
    [
        "http://localhost:{port}" + SIGNED,
        "https://user:word@localhost:{port}" + SIGNED,
        "https://localhost:1" + SIGNED,
        "https://localhost:99999/x",
        "https://[/x",
        "ftp://localhost/x",
        PATH,
        "",
    ],
)
@pytest_twisted.ensureDeferred
async def test_where_it_does_not_go_the_repository_is_asked_for_the_bytes(
    server: ScriptedServer,
    store: ScriptedServer,
    client: RepositoryClient,
    tmp_path: Path,
    location: str,
) -> None:
    server.scripts[f"GET {PATH}"] = sends_to(location.format(port=store.port))
    await client.get_file(REF, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT
    preferred = [asked.headers.get("prefer") for asked in server.asked]
    assert preferred == [None, "redirect", "redirect=no"]
    assert store.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        lambda asked: reply(403, b"<Error><Code>AccessDenied</Code></Error>"),
        lambda asked: reply(404, b"<Error><Code>NoSuchKey</Code></Error>"),
        lambda asked: reply(503, b""),
        lambda asked: reply(307, b"", Location="https://localhost:1/"),
        lambda asked: reply(206, CONTENT[:9], Content_Range=f"bytes 0-8/{len(CONTENT)}"),
        lambda asked: b"HTTP/1.0 200 Fine\r\n\r\n" + CONTENT + CLOSE,
        lambda asked: CLOSE,
        lambda asked: cut_after(0)(asked),
        lambda asked: SILENCE,
    ],
)
@pytest.mark.parametrize("streams", [1, 3])
@pytest_twisted.ensureDeferred
async def test_a_store_that_does_not_serve_is_gone_around(
    sending: ScriptedServer,
    store: ScriptedServer,
    grid: Grid,
    proxy: CredentialFiles,
    tmp_path: Path,
    answer: Script,
    streams: int,
) -> None:
    store.scripts[f"GET {KEY}"] = answer
    client = make_client(grid, proxy, sending.url, stall_seconds=0.5)
    await client.get_file(REF, tmp_path / "out", streams=streams)
    await client.close()
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert len(store.asked) <= 2 * streams


@pytest.mark.parametrize("believed", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_store_is_believed_by_the_grid_s_cas_or_the_machine_s(
    server: ScriptedServer,
    client: RepositoryClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    believed: bool,
) -> None:
    (tmp_path / "other").mkdir()
    other = Grid(tmp_path / "other", authority("/C=CA/O=Other/CN=Another CA"))
    other.host()
    if believed:
        [file] = other.directory.path.glob("*.0")
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
    store = await listening(other)
    server.scripts[f"GET {PATH}"] = sends_to(store.url + SIGNED)
    await client.get_file(REF, tmp_path / "out")
    await store.stop()
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert len(store.asked) == believed


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize(
    "answer", [stored(CONTENT[::-1]), stored(CONTENT + b"more"), stored(CONTENT[:-1])]
)
@pytest_twisted.ensureDeferred
async def test_other_bytes_than_the_repository_promised_are_replaced_by_its_own(
    sending: ScriptedServer,
    store: ScriptedServer,
    client: RepositoryClient,
    tmp_path: Path,
    answer: Script,
    streams: int,
) -> None:
    store.scripts[f"GET {KEY}"] = answer
    await client.get_file(REF, tmp_path / "out", streams=streams)
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["out"]
    assert store.asked != []


@pytest_twisted.ensureDeferred
async def test_other_bytes_than_promised_from_both_get_no_name(
    server: ScriptedServer, store: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    wrong = repr_digest(CONTENT[::-1])
    sent = sends_to(store.url + SIGNED, Repr_Digest=wrong)
    own = stored(ETag=ETAG, Repr_Digest=wrong)
    server.scripts[f"GET {PATH}"] = [sent, own]
    with pytest.raises(errors.DigestMismatch):
        await client.get_file(REF, tmp_path / "out")
    assert os.listdir(tmp_path) == []


@pytest_twisted.ensureDeferred
async def test_a_file_that_was_replaced_is_fetched_from_its_start(
    sending: ScriptedServer, store: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    old = serve_file(b"x" * 500_000, ETag='"old"')
    sending.scripts[f"HEAD {PATH}"] = [old, serve_file(CONTENT)]
    await client.get_file(REF, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert {asked.headers.get("range") for asked in store.asked} == {None}


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (lambda asked: problem("NotPermitted", 403, "Not for you."), errors.NotPermitted),
        (lambda asked: reply(302, b"", Location="https://localhost:1/"), errors.BadReply),
        (lambda asked: reply(307, b"", Location="https://localhost:1/"), errors.BadReply),
        (lambda asked: reply(307, b"x" * 2**17, Location="https://localhost/"), errors.BadReply),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_the_repository_refuses_stays_refused(
    server: ScriptedServer,
    client: RepositoryClient,
    tmp_path: Path,
    script: Callable[[Asked], bytes],
    error: type[Exception],
) -> None:
    server.scripts[f"GET {PATH}"] = script
    with pytest.raises(error):
        await client.get_file(REF, tmp_path / "out")
    assert os.listdir(tmp_path) == []
