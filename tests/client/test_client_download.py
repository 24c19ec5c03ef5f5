"""What a download promises: the right bytes under the final name, or none."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from repoman import errors
from repoman.client.credentials import CredentialFiles
from repoman.client.part_names import part_of
from repoman.client.partfile import PartFile
from repoman.client.progress import Progress
from repoman.client.repository import RepositoryClient
from repoman.model import ImageRef
from tests.client.conftest import make_client
from tests.client.scripted import CLOSE, Asked, ScriptedServer, problem, reply, serve_file
from tests.credentials import Grid

CONTENT = random.Random(1).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
REF = ImageRef("roger", "base.img")
PATH = "/api/images/raw/roger/base.img"


class Noted(Progress):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, int]] = []
        self.moved = 0

    def begin(self, total: int, done: int) -> None:
        self.begun.append((total, done))

    def advance(self, count: int) -> None:
        self.moved += count


def serve(server: ScriptedServer, script: Any) -> None:
    server.scripts[f"GET {PATH}"] = server.scripts[f"HEAD {PATH}"] = script


def cut_after(count: int) -> Callable[[Asked], bytes]:
    """An honest reply that breaks off after ``count`` bytes of its body."""

    def script(asked: Asked) -> bytes:
        answer = serve_file(CONTENT)(asked)
        if asked.method == "HEAD":
            return answer
        head, _, body = answer.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n" + body[:count] + CLOSE

    return script


@pytest_twisted.ensureDeferred
async def test_a_whole_file_takes_its_name(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    serve(server, serve_file(CONTENT))
    progress = Noted()
    await client.get_file(REF, tmp_path / "out", progress=progress)
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["out"]
    assert (progress.begun, progress.moved) == ([(len(CONTENT), 0)], len(CONTENT))
    assert {asked.headers["accept-encoding"] for asked in server.asked} == {"identity"}


@pytest_twisted.ensureDeferred
async def test_an_empty_file_is_a_file(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    serve(server, serve_file(b""))
    await client.get_file(REF, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b""


@pytest_twisted.ensureDeferred
async def test_a_hypervisor_of_ones_own_image_names_the_owner_too(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    server.scripts["GET /api/whoami"] = lambda _: reply(200, b'{"user_name": "roger"}')
    server.scripts["GET /api/images/raw/roger/kvm/base.img"] = serve_file(CONTENT)
    await client.get_file(ImageRef(None, "base.img"), tmp_path / "out", "kvm")
    assert (tmp_path / "out").read_bytes() == CONTENT


@pytest_twisted.ensureDeferred
async def test_zeros_become_holes(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    few = (b"x" * 4096 + bytes(28 * 1024)) * 100  # less than the network's pieces
    content = b"boot" + bytes(8_192_000 - 4) + few + b"end" + bytes(1_000_000)
    serve(server, serve_file(content))
    await client.get_file(REF, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == content
    assert (tmp_path / "out").stat().st_blocks * 512 < 4096 * 120


@pytest_twisted.ensureDeferred
async def test_a_broken_line_is_resumed_where_it_broke(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    serve(server, [cut_after(100_000), serve_file(CONTENT)])
    server.scripts[f"HEAD {PATH}"] = serve_file(CONTENT)
    await client.get_file(REF, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT
    second = [a for a in server.asked if a.method == "GET"][1]
    assert second.headers["range"] == "bytes=100000-"
    assert "if-range" in second.headers


@pytest_twisted.ensureDeferred
async def test_the_next_run_goes_on_where_the_last_one_stopped(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    part_of(tmp_path / "out", SHA256).write_bytes(CONTENT[:200_000])
    serve(server, serve_file(CONTENT))
    progress = Noted()
    await client.get_file(REF, tmp_path / "out", progress=progress)
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert progress.begun == [(len(CONTENT), 200_000)]
    assert progress.moved == len(CONTENT) - 200_000


@pytest_twisted.ensureDeferred
async def test_a_part_that_is_complete_is_only_verified(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    part_of(tmp_path / "out", SHA256).write_bytes(CONTENT)
    serve(server, serve_file(CONTENT))
    await client.get_file(REF, tmp_path / "out")
    assert server.paths() == [f"HEAD {PATH}"]
    assert (tmp_path / "out").read_bytes() == CONTENT


@pytest.mark.parametrize("stale", [b"x" * 1000, b"x" * 400_000, b"x" * len(CONTENT)])
@pytest_twisted.ensureDeferred
async def test_a_part_of_another_file_is_thrown_away(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path, stale: bytes
) -> None:
    part_of(tmp_path / "out", SHA256).write_bytes(stale)
    serve(server, serve_file(CONTENT))
    await client.get_file(REF, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["out"]


def lie(answer: bytes) -> Callable[[Asked], bytes]:
    return lambda asked: answer


WRONG = serve_file(CONTENT[:-1] + b"?")(Asked("GET", PATH, {})).partition(b"\r\n\r\n")[0]
ENDLESS = b'HTTP/1.1 200 OK\r\nETag: "' + b"0" * 64 + b'"\r\n\r\n' + CONTENT + CLOSE


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (serve_file(CONTENT, Repr_Digest="sha-256=:" + "A" * 43 + "=:"), errors.DigestMismatch),
        (lie(WRONG + b"\r\n\r\n" + CONTENT), errors.DigestMismatch),
        (cut_after(0), errors.ConnectionProblem),
        (serve_file(CONTENT, Content_Length=None), errors.BadReply),
        (serve_file(CONTENT, ETag='"1"', Repr_Digest=None), errors.BadReply),
        (lie(ENDLESS), errors.BadReply),
        (serve_file(gzip.compress(bytes(10_000_000)), Content_Encoding="gzip"), errors.BadReply),
        (lie(reply(302, Location="https://example.org/base.img")), errors.BadReply),
        (lie(reply(206, CONTENT[:5], Content_Range="bytes 5-9/10")), errors.BadReply),
        (lie(b"SSH-2.0-OpenSSH_9.2\r\n" + CLOSE), errors.RepomanError),
        (lie(problem("Missing", 404, "There is no image.")), errors.Missing),
        (lie(problem("Expired", 410, "Its time is over.")), errors.Expired),
        (lie(problem("NotPermitted", 403, "Not for you.")), errors.NotPermitted),
    ],
    ids=[
        "wrong digest", "wrong bytes", "torn at once", "no length", "no digest", "endless", "gzip",
        "elsewhere", "another part", "not HTTP", "missing", "expired", "not permitted",
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_whatever_the_server_does_no_wrong_file_takes_the_name(
    server: ScriptedServer,
    client: RepositoryClient,
    tmp_path: Path,
    script: Callable[[Asked], bytes],
    error: type[Exception],
) -> None:
    (tmp_path / "out").write_bytes(b"what was there before")
    serve(server, script)
    with pytest.raises(error):
        await client.get_file(REF, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"what was there before"


@pytest_twisted.ensureDeferred
async def test_a_length_without_an_end_is_none(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    part_of(tmp_path / "out", SHA256).write_bytes(CONTENT[:1000])
    serve(server, serve_file(CONTENT, Content_Length="9" * 5000))
    with pytest.raises(errors.BadReply, match="how long"):
        await client.get_file(REF, tmp_path / "out")
    assert part_of(tmp_path / "out", SHA256).read_bytes() == CONTENT[:1000]


@pytest_twisted.ensureDeferred
async def test_an_endless_body_behind_a_length_is_cut_there(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    honest = serve_file(CONTENT)
    serve(server, lambda asked: honest(asked) + b"x" * 1_000_000)
    await client.get_file(REF, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT


@pytest_twisted.ensureDeferred
async def test_a_server_that_stops_talking_is_left(
    grid: Grid, proxy: CredentialFiles, server: ScriptedServer, tmp_path: Path
) -> None:
    client = make_client(grid, proxy, server.url, stall_seconds=0.3)

    def stalls(asked: Asked) -> bytes:
        answer = cut_after(0 if "range" in asked.headers else 1000)(asked)
        return answer.removesuffix(CLOSE)

    serve(server, stalls)
    with pytest.raises(errors.ConnectionProblem, match="said nothing for"):
        await client.get_file(REF, tmp_path / "out")
    assert part_of(tmp_path / "out", SHA256).read_bytes() == CONTENT[:1000]
    await client.close()


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_only_slow_is_borne_with(
    grid: Grid, proxy: CredentialFiles, server: ScriptedServer, tmp_path: Path
) -> None:
    client = make_client(grid, proxy, server.url, stall_seconds=0.6)

    def trickle(asked: Asked) -> bytes:
        if asked.method == "HEAD":
            return serve_file(CONTENT)(asked)
        for step in range(1, 6):
            reactor.callLater(step * 0.2, server.send, CONTENT[step * 60_000 - 60_000 :][:60_000])
        return serve_file(CONTENT)(asked)[: -len(CONTENT)]

    serve(server, trickle)
    await client.get_file(REF, tmp_path / "out")
    assert server.paths() == [f"HEAD {PATH}", f"GET {PATH}"]
    await client.close()


@pytest_twisted.ensureDeferred
async def test_interrupting_keeps_what_came(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    serve(server, lambda asked: cut_after(123_456)(asked).removesuffix(CLOSE))
    running = Deferred.fromCoroutine(client.get_file(REF, tmp_path / "out"))
    await deferLater(reactor, 0.5)
    running.cancel()
    with pytest.raises(CancelledError):
        await running
    assert part_of(tmp_path / "out", SHA256).read_bytes() == CONTENT[:123_456]
    serve(server, serve_file(CONTENT))
    await client.get_file(REF, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT


@pytest_twisted.ensureDeferred
async def test_two_downloads_to_one_name_do_not_meet(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    serve(server, serve_file(CONTENT))
    with part_of(tmp_path / "out", SHA256).open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(errors.Conflict, match="running"):
            await client.get_file(REF, tmp_path / "out")


def test_a_download_that_ends_as_another_begins_keeps_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, lock = PartFile(tmp_path / "out"), fcntl.flock
    first.begin(SHA256, len(CONTENT))
    first.write(CONTENT)

    def end_before(file: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        first.finish()
        first.close()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", end_before)
    second = PartFile(tmp_path / "out")
    second.begin(SHA256, len(CONTENT))
    second.restart()
    assert sorted(os.listdir(tmp_path)) == ["out", part_of(tmp_path / "out", SHA256).name]
    second.close()
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["out"]


@pytest_twisted.ensureDeferred
async def test_a_link_put_in_the_way_is_not_followed(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    part_of(tmp_path / "out", SHA256).symlink_to(victim)
    serve(server, serve_file(CONTENT))
    with pytest.raises(OSError):
        await client.get_file(REF, tmp_path / "out")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("there", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_link_as_target_stays_and_its_file_is_replaced(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path, there: bool
) -> None:
    serve(server, serve_file(CONTENT))
    (tmp_path / "images").mkdir()
    file, link = tmp_path / "images" / "real", tmp_path / "out"
    if there:
        file.write_text("old")
    link.symlink_to("images/real")
    await client.get_file(REF, link)
    assert link.is_symlink()
    assert file.read_bytes() == CONTENT
    assert (os.listdir(tmp_path / "images"), sorted(os.listdir(tmp_path))) == (
        ["real"], ["images", "out"],
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["pipe", "device", "directory"])
@pytest.mark.parametrize("through_link", [True, False])
@pytest_twisted.ensureDeferred
async def test_what_is_no_file_is_not_replaced(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path, kind: str, through_link: bool
) -> None:
    serve(server, serve_file(CONTENT))
    target = thing = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(thing)
    elif kind == "directory":
        thing.mkdir()
    elif os.geteuid() == 0:
        os.mknod(thing, 0o600 | stat.S_IFCHR, os.stat("/dev/null").st_rdev)
    else:
        pytest.skip("only root can make devices")
    if through_link:
        target = tmp_path / "out"
        target.symlink_to(thing)
    before = thing.stat()
    with pytest.raises(errors.Invalid, match="device, a pipe or a directory"):
        await client.get_file(REF, target)
    assert os.path.samestat(thing.stat(), before)
    assert server.asked == []


@pytest_twisted.ensureDeferred
async def test_a_refusal_leaves_nothing_behind(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    with pytest.raises(errors.Missing):
        await client.get_file(REF, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_open_can_be_named_by_its_descriptor(tmp_path: Path) -> None:
    content, target = b"content", tmp_path / "vm"
    with target.open("wb") as file:
        part = PartFile(Path(f"/dev/fd/{file.fileno()}"))
        part.begin(hashlib.sha256(content).hexdigest(), len(content))
        part.write(content)
        part.finish()
        part.close()
    assert target.read_bytes() == content
    assert [*tmp_path.iterdir()] == [target]
