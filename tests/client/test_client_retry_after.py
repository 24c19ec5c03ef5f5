"""What a client promises that is told to come later: it comes later, and says why it waits."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from repoman import errors
from repoman.client import patience
from repoman.client.progress import Progress
from repoman.client.replies import retry_after
from repoman.client.repository import RepositoryClient
from repoman.client.upload import WHOLE
from repoman.model import ImageRef
from tests.client.scripted import (
    CLOSE,
    Asked,
    Script,
    ScriptedServer,
    json_reply,
    reply,
    serve_file,
    whole,
)

CONTENT = b"small"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
REF = ImageRef("roger", "base.img")
RAW = "/api/images/raw/roger/base.img"
PLACE = "/api/uploads/0123"


class Waits(Progress):
    """Remembers how long a transfer has waited."""

    def __init__(self) -> None:
        self.pauses: list[float | None] = []

    def waiting(self, error: Exception, seconds: float | None) -> None:
        self.pauses.append(seconds)


def busy(status: int, retry: str | None = "1", body: bytes = b"Not now.\n") -> Script:
    """Refuses for now."""
    return lambda _: reply(status, body, Content_Type="text/plain", Retry_After=retry) + CLOSE


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "disk.img").write_bytes(CONTENT)
    return tmp_path / "disk.img"


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("retry", ["0", "1", formatdate(usegmt=True)])
@pytest_twisted.ensureDeferred
async def test_an_upload_waits_for_as_long_as_the_server_asks(
    server: ScriptedServer, client: RepositoryClient, source: Path, status: int, retry: str
) -> None:
    server.scripts[f"PUT {RAW}"] = [busy(status, retry), whole(lambda _: reply(200) + CLOSE)]
    began, progress = time.monotonic(), Waits()
    assert await client.put_file(REF, source, progress=progress) == SHA256
    assert len(progress.pauses) == 1
    assert (progress.pauses[0] is None) == (status == 429)
    if retry == "1":
        assert time.monotonic() - began >= 1


@pytest_twisted.ensureDeferred
async def test_who_waits_for_a_turn_waits_longer_than_for_a_fault(
    server: ScriptedServer,
    client: RepositoryClient,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "SHORTEST_PAUSE", 0.01)
    refusals: list[Script] = [busy(429, "0") for _ in range(20)]
    server.scripts[f"PUT {RAW}"] = [*refusals, whole(lambda _: reply(200) + CLOSE)]
    assert await client.put_file(REF, source) == SHA256
    assert len(server.asked) == 21


@pytest.mark.parametrize("answer", [busy(429, None), busy(503, None), busy(502), busy(504, None)])
@pytest_twisted.ensureDeferred
async def test_a_proxy_in_front_that_names_no_time_is_asked_again_for_a_while(
    server: ScriptedServer, client: RepositoryClient, source: Path, answer: Script
) -> None:
    server.scripts[f"PUT {RAW}"] = [answer, answer, whole(lambda _: reply(200) + CLOSE)]
    assert await client.put_file(REF, source) == SHA256
    server.scripts[f"PUT {RAW}"] = busy(429, None)
    with pytest.raises(errors.TooManyUploads):
        await client.put_file(REF, source)


@pytest_twisted.ensureDeferred
async def test_each_step_of_a_resumed_upload_waits_for_its_turn(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    content = bytes(WHOLE + 1)
    (tmp_path / "disk.img").write_bytes(content)
    stored = bytearray()

    def take(asked: Asked) -> bytes:
        stored.extend(asked.body)
        done = asked.headers["upload-complete"] == "?1"
        return (json_reply({"name": "base.img"}) if done else reply(204)) + CLOSE

    def tell(_: Asked) -> bytes:
        return reply(204, Upload_Offset=len(stored), Content_Length=None)

    server.scripts |= {
        f"POST {RAW}": [busy(429), lambda _: reply(201, Location=PLACE, Upload_Offset=0)],
        f"HEAD {PLACE}": [lambda _: reply(429, Retry_After="1"), tell],
        f"GET {PLACE}": [busy(429), tell],
        f"PATCH {PLACE}": [busy(429), whole(take), busy(429), whole(take)],
    }
    progress = Waits()
    digest = await client.put_file(REF, tmp_path / "disk.img", progress=progress)
    assert (digest, bytes(stored)) == (hashlib.sha256(content).hexdigest(), content)
    assert progress.pauses == [None] * 4


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("streams", [1, 2])
@pytest_twisted.ensureDeferred
async def test_a_download_waits_too(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path, status: int, streams: int
) -> None:
    file = serve_file(CONTENT)
    server.scripts |= {f"GET {RAW}": [busy(status), file], f"HEAD {RAW}": file}
    await client.get_file(REF, tmp_path / "got", streams=streams)
    assert (tmp_path / "got").read_bytes() == CONTENT


QUESTIONS: dict[str, tuple[str, Callable[[RepositoryClient], Awaitable[object]]]] = {
    "read": ("GET /api/images/roger/base.img", lambda client: client.image(REF)),
    "list": ("GET /api/images", lambda client: client.images()),
    "make": ("POST /api/images", lambda client: client.create_image({"name": "base.img"})),
    "delete": ("DELETE /api/images/roger/base.img", lambda client: client.delete_image(REF)),
}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest_twisted.ensureDeferred
async def test_a_question_is_asked_again_when_the_server_says(
    server: ScriptedServer, client: RepositoryClient, question: str
) -> None:
    route, ask = QUESTIONS[question]
    fine = [] if question == "list" else {"name": "base.img"}
    server.scripts[route] = [busy(429), lambda _: json_reply(fine)]
    began = time.monotonic()
    await ask(client)
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize("question", ["make", "delete"])
@pytest_twisted.ensureDeferred
async def test_what_may_have_been_done_is_not_asked_for_again(
    server: ScriptedServer, client: RepositoryClient, question: str
) -> None:
    route, ask = QUESTIONS[question]
    server.scripts[route] = busy(503)
    with pytest.raises(errors.Unavailable):
        await ask(client)
    assert len(server.asked) == 1


NOW = 1_000_000_000.0
THEN = formatdate(NOW + 30, usegmt=True)


@pytest.mark.parametrize(
    ("stated", "date", "seconds"),
    [
        ("", "", None),
        ("0", "", 0),
        ("120", "", 120),
        ("9" * 5000, "", 999_999_999),
        (THEN, "", 30),
        (THEN, formatdate(NOW + 20, usegmt=True), 10),  # the server's clock, not ours
        (THEN, "yesterday", 30),
        (formatdate(NOW - 30, usegmt=True), "", 0),
        ("-1", "", None),
        ("1.5", "", None),
        ("soon", "", None),
        ("²", "", None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", "", None),
    ],
)
def test_when_to_come_again_is_read_as_seconds_and_as_a_moment(
    stated: str, date: str, seconds: float | None
) -> None:
    assert retry_after(stated, date, NOW) == seconds


@pytest.mark.parametrize("status", [429, 503])
@pytest_twisted.ensureDeferred
async def test_an_absurd_time_is_not_waited_for_and_who_waits_can_be_interrupted(
    server: ScriptedServer,
    client: RepositoryClient,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    server.scripts[f"PUT {RAW}"] = [busy(status, "9" * 30), whole(lambda _: reply(200) + CLOSE)]
    with monkeypatch.context() as shorter:
        shorter.setattr(patience, "LONGEST_PAUSE", 0.1)
        assert await client.put_file(REF, source) == SHA256
    server.scripts[f"PUT {RAW}"] = busy(status, "9" * 30)
    sending = Deferred.fromCoroutine(client.put_file(REF, source))
    while len(server.asked) < 3:
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    await deferLater(reactor, 0.05)  # type: ignore[arg-type]
    sending.cancel()
    with pytest.raises(CancelledError):
        await sending
