"""What a resumable upload promises, also with a server that lies or is of an older kind."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from repoman import errors
from repoman.client import upload
from repoman.client.pending import Pending
from repoman.client.repository import RepositoryClient
from repoman.client.source import FileSource, StreamSource
from repoman.model import ImageRef
from tests.client.scripted import (
    CLOSE,
    Asked,
    Script,
    ScriptedServer,
    json_reply,
    problem,
    reply,
    repr_digest,
    whole,
)

CONTENT = random.Random(11).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
REF = ImageRef("roger", "base.img")
RAW = "/api/images/raw/roger/base.img"
PLACE = "/api/uploads/abc"


class Uploads:
    """An honest server's half, to be made dishonest by the tests."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server, self.kept = server, b""
        self.there, self.stored = False, None
        server.scripts[f"POST {RAW}"] = self.create
        server.scripts[f"PUT {RAW}"] = whole(self.put)
        server.scripts[f"HEAD {PLACE}"] = self.state
        server.scripts[f"GET {PLACE}"] = self.state
        server.scripts[f"DELETE {PLACE}"] = self.delete
        server.scripts[f"PATCH {PLACE}"] = whole(self.append)
        server.scripts["GET /api/images/roger/base.img"] = self.image

    stored: str | None

    def create(self, asked: Asked) -> bytes:
        self.kept, self.there = b"", True
        return reply(201, b"", Location=PLACE, Upload_Offset="0")

    def put(self, asked: Asked) -> bytes:
        self.stored = hashlib.sha256(asked.body).hexdigest()
        return reply(200) + CLOSE

    def state(self, asked: Asked) -> bytes:
        if not self.there:
            return problem("Missing", 404, "There is no such upload.")
        return reply(200, b"", Upload_Offset=str(len(self.kept)))

    def delete(self, asked: Asked) -> bytes:
        self.there = False
        return reply(204)

    def append(self, asked: Asked) -> bytes:
        offset = int(asked.headers["upload-offset"])
        if offset != len(self.kept):
            return problem("WrongOffset", 409, "It goes on elsewhere.") + CLOSE
        self.kept += asked.body
        if asked.headers["upload-complete"] == "?0":
            return reply(204, b"", Upload_Offset=str(len(self.kept))) + CLOSE
        if asked.headers["repr-digest"] != repr_digest(self.kept):
            self.there = False
            return problem("DigestMismatch", 400, "Other bytes came than were announced.") + CLOSE
        self.stored, self.there = hashlib.sha256(self.kept).hexdigest(), False
        return json_reply({}) + CLOSE

    def image(self, asked: Asked) -> bytes:
        return json_reply({"name": "vm", "checksum": {"value": self.stored}, "files": {}})


@pytest.fixture
def uploads(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> Uploads:
    monkeypatch.setattr(upload, "WHOLE", 1000)
    return Uploads(server)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "disk.img").write_bytes(CONTENT)
    return tmp_path / "disk.img"


@pytest_twisted.ensureDeferred
async def test_it_is_begun_sent_and_completed_with_the_digest_of_the_whole(
    uploads: Uploads, client: RepositoryClient, source: Path
) -> None:
    assert await client.put_file(REF, source) == SHA256
    assert uploads.stored == SHA256
    first, _, last = uploads.server.asked
    assert (first.headers["upload-length"], first.headers["upload-complete"]) == ("3000000", "?0")
    assert (last.body, last.headers["upload-complete"]) == (b"", "?1")


@pytest_twisted.ensureDeferred
async def test_what_is_small_goes_at_once_with_its_digest(
    uploads: Uploads, client: RepositoryClient, tmp_path: Path
) -> None:
    (tmp_path / "small").write_bytes(b"small")
    await client.put_file(REF, tmp_path / "small")
    assert uploads.server.paths() == [f"PUT {RAW}"]
    assert uploads.server.asked[0].headers["repr-digest"] == repr_digest(b"small")


@pytest.mark.parametrize(
    "refusal",
    [problem("Missing", 404, "No such URL."), problem("MethodNotAllowed", 405, "Only PUT."),
     reply(404, b"<h1>Not found</h1>")],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_an_older_server_gets_a_put(
    uploads: Uploads, client: RepositoryClient, source: Path, refusal: bytes
) -> None:
    uploads.server.scripts[f"POST {RAW}"] = lambda _: refusal
    assert await client.put_file(REF, source) == SHA256
    assert uploads.stored == SHA256
    assert uploads.server.paths() == [f"POST {RAW}", f"PUT {RAW}"]


@pytest_twisted.ensureDeferred
async def test_an_older_server_cannot_have_a_stream(
    uploads: Uploads, client: RepositoryClient
) -> None:
    uploads.server.scripts[f"POST {RAW}"] = lambda _: problem("MethodNotAllowed", 405, "Only PUT.")
    with pytest.raises(errors.UnsupportedMedia, match="save what you send to a file"):
        await client.put_file(REF, stream(CONTENT * 12))


@pytest_twisted.ensureDeferred
async def test_a_refusal_comes_before_the_first_byte(
    uploads: Uploads, client: RepositoryClient, source: Path
) -> None:
    uploads.server.scripts[f"POST {RAW}"] = lambda _: problem("QuotaExceeded", 413, "No room.")
    with pytest.raises(errors.QuotaExceeded, match="No room"):
        await client.put_file(REF, source)
    assert uploads.server.paths() == [f"POST {RAW}"]
    assert uploads.server.received == 0


@pytest_twisted.ensureDeferred
async def test_it_goes_on_where_the_server_says(
    uploads: Uploads, client: RepositoryClient, source: Path, tmp_path: Path
) -> None:
    def keep_some(asked: Asked) -> bytes:
        uploads.kept += asked.body[:1_234_567]
        return CLOSE

    uploads.server.scripts[f"PATCH {PLACE}"] = [whole(keep_some), whole(uploads.append)]
    assert await client.put_file(REF, source) == SHA256
    assert uploads.stored == SHA256
    parts = [a for a in uploads.server.asked if a.method == "PATCH"]
    assert [a.headers["upload-offset"] for a in parts] == ["0", "1234567", "3000000"]


@pytest_twisted.ensureDeferred
async def test_the_next_run_goes_on_and_the_one_after_begins_anew(
    uploads: Uploads, client: RepositoryClient, source: Path, tmp_path: Path
) -> None:
    came: Deferred[None] = Deferred()
    uploads.server.scripts[f"PATCH {PLACE}"] = [whole(lambda _: came.callback(None) or b"")]
    running = Deferred.fromCoroutine(client.put_file(REF, source, memory=tmp_path / "memory"))
    await came
    running.cancel()
    with pytest.raises(CancelledError):
        await running
    uploads.kept = CONTENT[:2_000_000]
    uploads.server.scripts[f"PATCH {PLACE}"] = whole(uploads.append)
    uploads.server.asked.clear()
    assert await client.put_file(REF, source, memory=tmp_path / "memory") == SHA256
    assert uploads.server.paths() == [f"HEAD {PLACE}", f"PATCH {PLACE}", f"PATCH {PLACE}"]
    assert len(uploads.server.asked[1].body) == 1_000_000
    assert os.listdir(tmp_path / "memory") == []
    uploads.server.asked.clear()
    assert await client.put_file(REF, source, memory=tmp_path / "memory") == SHA256
    assert uploads.server.paths()[0] == f"POST {RAW}"


def remember(tmp_path: Path, source: Path, url: str) -> Path:
    """As an earlier run would have."""
    opened, pending = FileSource(source), Pending(tmp_path / "memory", url + RAW)
    pending.remember(opened.identity, PLACE)
    pending.close()
    opened.close()
    return tmp_path / "memory"


@pytest_twisted.ensureDeferred
async def test_an_upload_that_the_server_has_given_up_begins_anew(
    uploads: Uploads, client: RepositoryClient, source: Path, tmp_path: Path
) -> None:
    memory = remember(tmp_path, source, uploads.server.url)
    assert await client.put_file(REF, source, memory=memory) == SHA256
    assert uploads.stored == SHA256


@pytest_twisted.ensureDeferred
async def test_an_upload_whose_last_answer_got_lost_is_not_repeated(
    uploads: Uploads, client: RepositoryClient, source: Path, tmp_path: Path
) -> None:
    memory = remember(tmp_path, source, uploads.server.url)
    uploads.stored = SHA256
    assert await client.put_file(REF, source, memory=memory) == SHA256
    assert not any(p.startswith(("PATCH", "PUT", "POST")) for p in uploads.server.paths())


@pytest_twisted.ensureDeferred
async def test_the_last_answer_may_get_lost_in_one_run_too(
    uploads: Uploads, client: RepositoryClient, source: Path
) -> None:
    def swallow(asked: Asked) -> bytes:
        uploads.append(asked)
        return CLOSE

    uploads.server.scripts[f"PATCH {PLACE}"] = [whole(uploads.append), whole(swallow)]
    assert await client.put_file(REF, source) == SHA256


@pytest_twisted.ensureDeferred
async def test_bytes_of_an_earlier_run_that_are_wrong_are_sent_anew(
    uploads: Uploads, client: RepositoryClient, source: Path, tmp_path: Path
) -> None:
    memory = remember(tmp_path, source, uploads.server.url)
    uploads.kept, uploads.there = b"x" * 1000, True
    assert await client.put_file(REF, source, memory=memory) == SHA256
    assert uploads.stored == SHA256


@pytest_twisted.ensureDeferred
async def test_another_file_gives_up_the_upload_of_the_first(
    uploads: Uploads, client: RepositoryClient, source: Path, tmp_path: Path
) -> None:
    memory = remember(tmp_path, source, uploads.server.url)
    uploads.kept, uploads.there = CONTENT[:1000], True
    (tmp_path / "other").write_bytes(CONTENT[::-1])
    await client.put_file(REF, tmp_path / "other", memory=memory)
    assert uploads.server.paths()[0] == f"DELETE {PLACE}"
    assert uploads.stored == hashlib.sha256(CONTENT[::-1]).hexdigest()


@pytest_twisted.ensureDeferred
async def test_a_torn_memory_is_none(
    uploads: Uploads, client: RepositoryClient, source: Path, tmp_path: Path
) -> None:
    memory = remember(tmp_path, source, uploads.server.url)
    (file,) = memory.iterdir()
    file.write_text('{"file": "1:2:')
    assert await client.put_file(REF, source, memory=memory) == SHA256


def test_an_upload_that_ends_as_another_begins_does_not_take_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, lock = Pending(tmp_path, RAW), fcntl.flock

    def end_before(file: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        first.close()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", end_before)
    second = Pending(tmp_path, RAW)
    second.remember("1:2", PLACE)
    second.close()
    assert Pending(tmp_path, RAW).recall() == ("1:2", PLACE)


def answering(answer: bytes) -> Callable[[Uploads], Script]:
    return lambda uploads: whole(lambda asked: answer + CLOSE)


ENDLESS_LEAVE = b"HTTP/1.1 100 Continue\r\n" + b"A: b\r\n" * 2**18
ELSEWHERE = reply(307, Location="https://example.org/api/uploads/abc")


@pytest.mark.parametrize(
    ("route", "script", "error"),
    [
        (f"POST {RAW}", answering(reply(201, Location="/elsewhere")), errors.BadReply),
        (f"POST {RAW}", answering(reply(201)), errors.BadReply),
        (f"POST {RAW}", answering(reply(200)), errors.RepomanError),
        (f"POST {RAW}", answering(ELSEWHERE), errors.BadReply),
        (f"PATCH {PLACE}", answering(ELSEWHERE), errors.BadReply),
        (f"PATCH {PLACE}", answering(reply(409, b"Elsewhere.")), errors.Conflict),
        (f"PATCH {PLACE}", answering(problem("WrongOffset", 409, "No.")), errors.WrongOffset),
        (f"PATCH {PLACE}", answering(problem("DigestMismatch", 400, "")), errors.DigestMismatch),
        (f"PATCH {PLACE}", answering(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(2**21)), errors.BadReply),
        (f"PATCH {PLACE}", answering(ENDLESS_LEAVE), errors.BadReply),
        (f"PATCH {PLACE}", answering(b"SSH-2.0-OpenSSH_9.2\r\n"), errors.RepomanError),
        (f"PATCH {PLACE}", answering(b""), errors.ConnectionProblem),
    ],
)
@pytest_twisted.ensureDeferred
async def test_whatever_the_server_does_it_is_no_success(
    uploads: Uploads,
    client: RepositoryClient,
    source: Path,
    route: str,
    script: Callable[[Uploads], Script],
    error: type[Exception],
) -> None:
    uploads.server.scripts[route] = script(uploads)
    with pytest.raises(error):
        await client.put_file(REF, source)


@pytest.mark.parametrize("offset", ["4000000", "-1", "", "1e3", "9" * 5000])
@pytest_twisted.ensureDeferred
async def test_an_offset_that_cannot_be_is_refused(
    uploads: Uploads, client: RepositoryClient, source: Path, offset: str
) -> None:
    uploads.server.scripts[f"HEAD {PLACE}"] = lambda _: reply(200, Upload_Offset=offset)
    uploads.server.scripts[f"PATCH {PLACE}"] = whole(lambda _: CLOSE)
    with pytest.raises(errors.BadReply):
        await client.put_file(REF, source)


@pytest_twisted.ensureDeferred
async def test_a_server_that_never_keeps_anything_is_left(
    uploads: Uploads, client: RepositoryClient, source: Path
) -> None:
    uploads.server.scripts[f"PATCH {PLACE}"] = whole(lambda _: CLOSE)
    with pytest.raises(errors.ConnectionProblem):
        await client.put_file(REF, source)
    assert len(uploads.server.asked) < 12


@pytest_twisted.ensureDeferred
async def test_a_file_that_changes_meanwhile_is_no_image(
    uploads: Uploads, client: RepositoryClient, source: Path
) -> None:
    def change(asked: Asked) -> bytes:
        with source.open("r+b") as file:
            file.write(b"changed")
        return uploads.append(asked)

    uploads.server.scripts[f"PATCH {PLACE}"] = whole(change)
    with pytest.raises(errors.LengthMismatch, match="changed while"):
        await client.put_file(REF, source)
    assert uploads.stored is None


def stream(content: bytes, step: int = 700_001) -> StreamSource:
    """A stream that comes in pieces of no particular size."""
    left = [content]

    async def pull(count: int) -> bytes:
        await deferLater(reactor, 0)
        piece, left[0] = left[0][: min(count, step)], left[0][min(count, step) :]
        return piece

    return StreamSource(pull, "the stream")


@pytest.mark.parametrize("size", [0, 1, 1000, 1001, 2_999_999])
@pytest_twisted.ensureDeferred
async def test_a_stream_arrives_whatever_its_length(
    uploads: Uploads, client: RepositoryClient, size: int
) -> None:
    sent = await client.put_file(REF, stream(CONTENT[:size]))
    assert sent == uploads.stored == hashlib.sha256(CONTENT[:size]).hexdigest()


@pytest_twisted.ensureDeferred
async def test_a_stream_is_sent_in_parts_each_of_which_survives_a_broken_line(
    uploads: Uploads, client: RepositoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from repoman.client import source

    monkeypatch.setattr(source, "PART", 1_000_000)

    def keep_some(asked: Asked) -> bytes:
        uploads.kept += asked.body[:1_234]
        return CLOSE

    honest: Any = whole(uploads.append)
    uploads.server.scripts[f"PATCH {PLACE}"] = [
        honest, whole(keep_some), honest, whole(keep_some), honest
    ]  # fmt: skip
    assert await client.put_file(REF, stream(CONTENT)) == SHA256
    assert uploads.stored == SHA256
    created = uploads.server.asked[0]
    assert "upload-length" not in created.headers


@pytest_twisted.ensureDeferred
async def test_confirmed_bytes_of_a_stream_that_the_server_loses_are_an_error(
    uploads: Uploads, client: RepositoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from repoman.client import source

    monkeypatch.setattr(source, "PART", 1_000_000)

    def forget(asked: Asked) -> bytes:
        uploads.kept = b""
        return CLOSE

    uploads.server.scripts[f"PATCH {PLACE}"] = [whole(uploads.append), whole(forget)]
    with pytest.raises(errors.BadReply, match="begin again"):
        await client.put_file(REF, stream(CONTENT))
    assert uploads.stored is None
    assert uploads.server.paths().count(f"HEAD {PLACE}") == 1, "what cannot pass is not tried again"


@pytest_twisted.ensureDeferred
async def test_more_bytes_of_a_stream_than_were_sent_are_an_error(
    uploads: Uploads, client: RepositoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from repoman.client import source

    monkeypatch.setattr(source, "PART", 1_000_000)
    uploads.server.scripts[f"HEAD {PLACE}"] = lambda _: reply(200, Upload_Offset="1000001")
    uploads.server.scripts[f"PATCH {PLACE}"] = whole(lambda _: CLOSE)
    running = Deferred.fromCoroutine(client.put_file(REF, stream(CONTENT)))
    with pytest.raises(errors.BadReply, match="more of the file than was sent"):
        await running.addTimeout(3.0, reactor)


@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        (problem("QuotaExceeded", 413, "Full."), errors.QuotaExceeded),
        (problem("TooLarge", 413, "Too large."), errors.TooLarge),
        (problem("NoRoom", 507, "Full."), errors.NoRoom),
        (problem("NotPermitted", 403, "No."), errors.NotPermitted),
        (problem("TooManyUploads", 429, "Wait."), None),
        (problem("MethodNotAllowed", 405, "An older server."), None),
        (problem("Missing", 404, "An older server."), None),
        (reply(201, Location=f"{PLACE}3"), None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_server_that_is_asked_whether_it_would_take_files_keeps_nothing_of_it(
    server: ScriptedServer,
    client: RepositoryClient,
    answer: bytes,
    raised: type[Exception] | None,
) -> None:
    places = [f"{PLACE}1", f"{PLACE}2", f"{PLACE}3"]
    begun = [lambda _, place=place: reply(201, Location=place) for place in places[:2]]
    server.scripts[f"POST {RAW}"] = [*begun, lambda _: answer]
    server.scripts |= {f"DELETE {place}": lambda _: reply(200) for place in places}
    with nullcontext() if raised is None else pytest.raises(raised):
        await client.try_file(REF, [5, 6, 7])
    posts = [asked for asked in server.asked if asked.method == "POST"]
    assert [asked.headers["upload-length"] for asked in posts] == ["5", "6", "7"]
    ended = places if answer.startswith(b"HTTP/1.1 201") else places[:2]
    assert server.paths()[3:] == [f"DELETE {place}" for place in ended]
