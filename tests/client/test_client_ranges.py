"""What fetching over several connections promises: the same as over one."""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from repoman import errors
from repoman.client import ranges
from repoman.client.part_names import part_of
from repoman.client.repository import RepositoryClient
from repoman.model import ImageRef
from tests.client.scripted import (
    CLOSE,
    Asked,
    ScriptedServer,
    problem,
    reply,
    repr_digest,
    serve_file,
)

CONTENT = random.Random(12).randbytes(1_000_000) + bytes(2_000_000) + b"end"
REF = ImageRef("roger", "base.img")
PATH = "/api/images/raw/roger/base.img"
ETAG = '"1"'


def part(asked: Asked, content: bytes = CONTENT, **lies: Any) -> bytes:
    """An honest reply to a request for a range."""
    found = re.fullmatch(r"bytes=(\d+)-(\d+)", asked.headers["range"])
    assert found
    start, last = int(found[1]), int(found[2])
    assert asked.headers["if-match"] == ETAG
    headers = {"Content-Range": f"bytes {start}-{last}/{len(content)}", "ETag": ETAG, **lies}
    return reply(206, content[start : last + 1], **headers)


@pytest.fixture
def server_with_file(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> ScriptedServer:
    monkeypatch.setattr(ranges, "RANGE", 200_000)
    server.scripts[f"HEAD {PATH}"] = serve_file(
        CONTENT, ETag=ETAG, Repr_Digest=repr_digest(CONTENT), Accept_Ranges="bytes"
    )
    server.scripts[f"GET {PATH}"] = part
    return server


@pytest.mark.parametrize("streams", [2, 3, 16])
@pytest_twisted.ensureDeferred
async def test_the_file_is_put_together(
    server_with_file: ScriptedServer, client: RepositoryClient, tmp_path: Path, streams: int
) -> None:
    await client.get_file(REF, tmp_path / "out", streams=streams)
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["out"]
    assert (tmp_path / "out").stat().st_blocks * 512 < 2_000_000
    assert min(streams, 10) <= server_with_file.connected <= streams + 1


@pytest_twisted.ensureDeferred
async def test_it_goes_on_where_an_earlier_run_stopped(
    server_with_file: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    part_of(tmp_path / "out", hashlib.sha256(CONTENT).hexdigest()).write_bytes(CONTENT[:1_234_567])
    await client.get_file(REF, tmp_path / "out", streams=4)
    assert (tmp_path / "out").read_bytes() == CONTENT
    starts = [a.headers["range"] for a in server_with_file.asked if a.method == "GET"]
    assert min(int(s[6:].partition("-")[0]) for s in starts) == 1_234_567


@pytest_twisted.ensureDeferred
async def test_a_broken_line_is_borne(
    server_with_file: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    times = [0]

    def sometimes(asked: Asked) -> bytes:
        times[0] += 1
        return part(asked)[:-50_000] + CLOSE if times[0] in (3, 9) else part(asked)

    server_with_file.scripts[f"GET {PATH}"] = sometimes
    await client.get_file(REF, tmp_path / "out", streams=3)
    assert (tmp_path / "out").read_bytes() == CONTENT


@pytest_twisted.ensureDeferred
async def test_a_line_that_breaks_within_each_range_makes_way(
    server_with_file: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    def broken(asked: Asked) -> bytes:
        whole = part(asked)
        return whole[: len(whole) - 70_000] + CLOSE if len(whole) > 100_000 else whole

    server_with_file.scripts[f"GET {PATH}"] = broken
    await client.get_file(REF, tmp_path / "out", streams=3)
    assert (tmp_path / "out").read_bytes() == CONTENT


@pytest_twisted.ensureDeferred
async def test_an_image_that_is_replaced_meanwhile_is_fetched_anew(
    server_with_file: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    times = [0]

    def replaced(asked: Asked) -> bytes:
        times[0] += 1
        return problem("PreconditionFailed", 412, "Another.") if times[0] == 4 else part(asked)

    server_with_file.scripts[f"GET {PATH}"] = replaced
    await client.get_file(REF, tmp_path / "out", streams=2)
    assert (tmp_path / "out").read_bytes() == CONTENT


@pytest_twisted.ensureDeferred
async def test_a_server_without_ranges_is_asked_for_the_whole(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    server.scripts[f"HEAD {PATH}"] = server.scripts[f"GET {PATH}"] = serve_file(CONTENT)
    await client.get_file(REF, tmp_path / "out", streams=4)
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert server.paths() == [f"HEAD {PATH}", f"GET {PATH}"]


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (lambda asked: part(asked, CONTENT[::-1]), errors.DigestMismatch),
        (lambda asked: part(asked, Content_Range="bytes 0-1/2"), errors.BadReply),
        (lambda asked: part(asked, Content_Range=None), errors.BadReply),
        (lambda asked: part(asked)[:-1] + CLOSE, errors.ConnectionProblem),
        (lambda asked: reply(200, CONTENT), errors.BadReply),
        (lambda asked: reply(302, Location="https://example.org/"), errors.BadReply),
        (lambda asked: problem("PreconditionFailed", 412, "No."), errors.PreconditionFailed),
        (lambda asked: problem("NotPermitted", 403, "Not for you."), errors.NotPermitted),
    ],
)
@pytest_twisted.ensureDeferred
async def test_whatever_the_server_does_no_wrong_file_takes_the_name(
    server_with_file: ScriptedServer,
    client: RepositoryClient,
    tmp_path: Path,
    script: Callable[[Asked], bytes],
    error: type[Exception],
) -> None:
    (tmp_path / "out").write_bytes(b"what was there before")
    server_with_file.scripts[f"GET {PATH}"] = script
    with pytest.raises(error):
        await client.get_file(REF, tmp_path / "out", streams=3)
    assert (tmp_path / "out").read_bytes() == b"what was there before"
