"""What a name gets are the bytes that were verified for it, and nobody else's file is touched."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import string
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import deferLater

from repoman import errors
from repoman.client.credentials import CredentialFiles
from repoman.client.part_names import KEPT, is_part, part_of
from repoman.client.partfile import PartFile
from repoman.client.repository import RepositoryClient
from repoman.model import ImageRef
from tests.client.conftest import make_client
from tests.client.scripted import CLOSE, Asked, ScriptedServer, problem, serve_file
from tests.credentials import Grid

ENDINGS = (".part", ".part.part", ".new", "~", ".bak")
CONTENT = random.Random(15).randbytes(200_003)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PATH = "/api/images/raw/roger/foo"


@pytest.fixture
def images(server: ScriptedServer) -> ScriptedServer:
    server.scripts[f"GET {PATH}"] = serve_file(CONTENT)
    return server


LEGAL = string.ascii_letters + string.digits + "_.-"


def two_gets(chance: random.Random) -> list[tuple[str, str]]:
    """Two images, and where each is to go: names that may get into each other's way."""
    name = "n" + "".join(chance.choices(LEGAL, k=chance.choice((0, 7, 90))))
    likes = (name, f"{name}.part", f".{name}", f"{name}.new", name.swapcase(), name[:-1] or "other")
    other, kind = chance.choice(likes)[:100], chance.randrange(5)
    if kind == 0:
        return [(name, "target"), (other, "target")]
    if kind == 1:  # what does not fit with the ending, and what is left of it
        long = "\u00fc" * chance.randrange(90, 128)
        cut, _, _ = part_of(Path(long), SHA256).name.partition("@")
        return [(name, long), (other, chance.choice((cut, long[:-1], long)))]
    return [(name, name), (other, other)]


def content_of(name: str) -> bytes:
    return random.Random(name).randbytes(60_000 + len(name))


@pytest_twisted.ensureDeferred
async def test_any_two_names_at_once_get_their_own_bytes_or_a_refusal(
    server: ScriptedServer, grid: Grid, proxy: CredentialFiles, tmp_path: Path
) -> None:
    """A hundred times, at random pauses within the bytes, too; each is done again until it is."""
    clients = [make_client(grid, proxy, server.url) for _ in range(2)]
    chance = random.Random(15)
    refused = cut = 0
    for turn in range(100):
        place, pair = tmp_path / str(turn), two_gets(chance)
        server.piece, server.pause = 20_000, lambda: chance.random() * 0.02
        place.mkdir()
        for name, _ in pair:
            server.scripts[f"GET /api/images/raw/roger/{name}"] = serve_file(content_of(name))
        targets = {target for _, target in pair}
        bystanders = {f"{target[:100]}{end}" for target in targets for end in ENDINGS} - targets
        for one in bystanders:
            (place / one).write_text(f"{one} of the user")

        async def get(client: RepositoryClient, name: str, target: Path) -> None:
            await deferLater(reactor, chance.random() * 0.03)
            await client.get_file(ImageRef("roger", name), target)

        both = [
            Deferred.fromCoroutine(get(client, name, place / target))
            for client, (name, target) in zip(clients, pair, strict=True)
        ]
        if chance.randrange(4) == 0:
            reactor.callLater(chance.random() * 0.1, both[0].cancel)
        ended = await DeferredList(both, consumeErrors=True)
        for (fine, result), (_, target) in zip(ended, pair, strict=True):
            assert fine or result.check(errors.Conflict, CancelledError), result
            assert fine or result.check(CancelledError) or len(targets) == 1, "no conflict"
            assert not fine or (place / target).exists()
            if (place / target).exists():
                may = {content_of(one) for one, its in pair if its == target}
                assert (place / target).read_bytes() in may
            refused += not fine
            cut += not fine and result.check(CancelledError) is not None
        server.piece = 2**30
        for client, (name, target) in zip(clients, pair, strict=True):
            await client.get_file(ImageRef("roger", name), place / target)
            assert (place / target).read_bytes() == content_of(name)
        for one in bystanders:
            assert (place / one).read_text() == f"{one} of the user"
        left = {*os.listdir(place)} - targets - bystanders
        assert all(is_part(one) for one in left), left
        shutil.rmtree(place)
    for client in clients:
        await client.close()
    assert cut > 5, "some were cut off"
    assert 5 < refused - cut < 50, "some met"


@pytest.mark.parametrize("name", ["foo.part", "foo.new", "foo.tmp", "foo~", ".foo.part", "foo.bak"])
@pytest_twisted.ensureDeferred
async def test_a_file_of_the_user_beside_a_download_stays(
    images: ScriptedServer, client: RepositoryClient, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("of the user")
    await client.get_file(ImageRef("roger", "foo"), tmp_path / "foo")
    assert (tmp_path / name).read_text() == "of the user"
    assert (tmp_path / "foo").read_bytes() == CONTENT


@pytest.mark.parametrize("other", ["version", "image", "hypervisor"])
@pytest_twisted.ensureDeferred
async def test_what_came_of_other_bytes_is_neither_continued_nor_destroyed(
    images: ScriptedServer, client: RepositoryClient, tmp_path: Path, other: str
) -> None:
    part = part_of(tmp_path / "out", hashlib.sha256(CONTENT[::-1]).hexdigest())
    part.write_bytes(CONTENT[::-1][:1000])
    before = part.stat()
    if other == "hypervisor":
        images.scripts["GET /api/images/raw/roger/kvm/foo"] = serve_file(CONTENT)
    await client.get_file(
        ImageRef("roger", "foo"), tmp_path / "out", "kvm" if other == "hypervisor" else None
    )
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert all("range" not in asked.headers for asked in images.asked)
    assert (part.read_bytes(), part.stat().st_ino) == (CONTENT[::-1][:1000], before.st_ino)


@pytest_twisted.ensureDeferred
async def test_what_nobody_goes_on_with_for_a_week_goes_with_the_next_download(
    images: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    old, not_of_this = (part_of(tmp_path / name, "0" * 64) for name in ("out", "out.more"))
    for part in (old, not_of_this):
        part.write_bytes(b"stale")
        os.utime(part, (0, time.time() - KEPT - 60))
    await client.get_file(ImageRef("roger", "foo"), tmp_path / "out")
    assert set(os.listdir(tmp_path)) == {"out", not_of_this.name}


@pytest_twisted.ensureDeferred
async def test_two_versions_on_the_way_to_one_name_do_not_meet(
    images: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    other = PartFile(tmp_path / "out")
    other.begin("0" * 64, 1000)
    other.write(b"some")
    with pytest.raises(errors.Conflict, match="Another download to"):
        await client.get_file(ImageRef("roger", "foo"), tmp_path / "out")
    other.close()
    assert os.listdir(tmp_path) == [part_of(tmp_path / "out", "0" * 64).name]


@pytest_twisted.ensureDeferred
async def test_an_image_replaced_on_the_way_leaves_no_part_of_the_old_one(
    images: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    new = CONTENT[::-1]

    def cut(asked: Asked) -> bytes:
        return serve_file(CONTENT)(asked)[:-100_000] + CLOSE

    images.scripts[f"GET {PATH}"] = [cut, serve_file(new)]
    images.scripts[f"HEAD {PATH}"] = [serve_file(CONTENT), serve_file(new)]
    await client.get_file(ImageRef("roger", "foo"), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == new
    assert os.listdir(tmp_path) == ["out"]


@pytest_twisted.ensureDeferred
async def test_no_target_is_called_like_an_unfinished_download(
    images: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    target = part_of(tmp_path / "out", SHA256)
    target.write_text("something")
    with pytest.raises(errors.Invalid, match="choose another"):
        await client.get_file(ImageRef("roger", "foo"), target)
    assert (target.read_text(), images.asked) == ("something", [])


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "x" + "ü" * 127, "\udcff" * 250, "@" * 200])
@pytest_twisted.ensureDeferred
async def test_the_longest_names_are_names(
    images: ScriptedServer, client: RepositoryClient, tmp_path: Path, name: str
) -> None:
    part = part_of(tmp_path / name, SHA256)
    part.write_bytes(CONTENT[:1000])
    assert part != part_of(tmp_path / (name[:-1] + "y"), SHA256)
    await client.get_file(ImageRef("roger", "foo"), tmp_path / name)
    assert (tmp_path / name).read_bytes() == CONTENT
    assert os.listdir(tmp_path) == [name]
    assert images.asked[-1].headers["range"] == "bytes=1000-"


def written_over(part: Path) -> None:
    with part.open("r+b") as file:
        file.seek(10)
        file.write(b"?")


def replaced(part: Path) -> None:
    shutil.copy(part, part.with_name("copy"))
    part.with_name("copy").replace(part)


def cut_off(part: Path) -> None:
    os.truncate(part, 100)


def moved_with_its_directory(part: Path) -> None:
    part.parent.rename(part.parent.with_name("elsewhere"))
    part.parent.mkdir()


TOUCHES = (written_over, replaced, cut_off, Path.unlink, moved_with_its_directory)


@pytest.mark.parametrize("touch", TOUCHES)
@pytest.mark.parametrize("when", ["on the way", "at its end"])
@pytest_twisted.ensureDeferred
async def test_what_somebody_else_touched_does_not_take_the_name_unverified(
    images: ScriptedServer,
    client: RepositoryClient,
    tmp_path: Path,
    touch: Callable[[Path], None],
    when: str,
) -> None:
    target = tmp_path / "place" / "out"
    target.parent.mkdir()
    target.write_text("what was there")
    part, half, touched = part_of(target, SHA256), len(CONTENT) // 2, list[None]()

    def halves(asked: Asked) -> bytes:
        if asked.method == "HEAD":
            return serve_file(CONTENT)(asked)
        reactor.callLater(0.3, lambda: touched.append(touch(part)))
        reactor.callLater(0.6, images.send, CONTENT[-half:])
        return serve_file(CONTENT)(asked)[:-half]

    if when == "on the way":
        images.scripts[f"GET {PATH}"] = [halves, serve_file(CONTENT)]
        images.scripts[f"HEAD {PATH}"] = serve_file(CONTENT)
        wait = client.get_file(ImageRef("roger", "foo"), target)
    else:
        wait = at_the_end(target, touch, part)
    try:
        await wait
    except (errors.Conflict, errors.DigestMismatch):
        kept = target if target.exists() else tmp_path / "elsewhere" / "out"
        assert kept.read_text() == "what was there"
    else:
        assert target.read_bytes() == CONTENT
    assert touched == ([None] if when == "on the way" else [])


async def at_the_end(target: Path, touch: Callable[[Path], None], part: Path) -> None:
    sink = PartFile(target)
    sink.begin(SHA256, len(CONTENT))
    sink.write(CONTENT)
    touch(part)
    try:
        sink.finish()
    finally:
        sink.close()


def test_what_somebody_moved_away_is_theirs(tmp_path: Path) -> None:
    """Also what they have added to it since."""
    sink, mine = PartFile(tmp_path / "out"), tmp_path / "mine"
    sink.begin(SHA256, len(CONTENT))
    sink.write(CONTENT[:1000])
    part_of(tmp_path / "out", SHA256).rename(mine)
    with mine.open("ab") as file:
        file.write(b"of the user")
    for act in (sink.restart, lambda: sink.write(b"more"), sink.finish):
        with pytest.raises(errors.Conflict, match="moved"):
            act()
    sink.close()
    assert mine.read_bytes() == CONTENT[:1000] + b"of the user"
    assert os.listdir(tmp_path) == ["mine"]


@pytest.mark.parametrize("laid", ["link", "pipe", "directory", "file", "edit"])
def test_what_somebody_laid_at_the_target_meanwhile_stays(tmp_path: Path, laid: str) -> None:
    target = tmp_path / "out"
    if laid == "edit":
        target.write_text("there at first")
    sink = PartFile(target)
    sink.begin(SHA256, len(CONTENT))
    sink.write(CONTENT)
    if laid in ("file", "edit"):
        target.write_text("of the user")
    elif laid == "link":
        (tmp_path / "other").write_text("of the user")
        target.symlink_to("other")
    else:
        (os.mkfifo if laid == "pipe" else os.mkdir)(target)
    before = target.lstat()
    with pytest.raises(errors.Conflict, match="the same command"):
        sink.finish()
    sink.close()
    assert os.path.samestat(target.lstat(), before)
    assert laid not in ("file", "edit") or target.read_text() == "of the user"
    assert part_of(target, SHA256).read_bytes() == CONTENT


def test_what_somebody_removed_meanwhile_is_in_nobodys_way(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("there at first")
    sink = PartFile(target)
    sink.begin(SHA256, len(CONTENT))
    sink.write(CONTENT)
    target.unlink()
    sink.finish()
    sink.close()
    assert target.read_bytes() == CONTENT


@pytest_twisted.ensureDeferred
async def test_a_file_system_that_sets_its_times_late_costs_a_second_look(
    images: ScriptedServer,
    client: RepositoryClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As network file systems do, when the bytes have reached their server."""
    late, fsync = [part_of(tmp_path / "out", SHA256)], os.fsync

    def synced(file: int) -> None:
        fsync(file)
        if late:
            os.utime(late.pop())

    monkeypatch.setattr(os, "fsync", synced)
    await client.get_file(ImageRef("roger", "foo"), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert images.paths().count(f"GET {PATH}") == 1
    assert not late


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_only_another_may_replace_is_refused_before_the_first_byte(tmp_path: Path) -> None:
    for above in list(tmp_path.parents)[:2]:
        above.chmod(0o755)
    tmp_path.chmod(0o1777)
    (tmp_path / "out").write_text("somebody's")
    os.chown(tmp_path / "out", 54321, 54321)
    os.seteuid(43210)
    try:
        with pytest.raises(PermissionError, match="Somebody else's"):
            PartFile(tmp_path / "out")
    finally:
        os.seteuid(0)


def test_a_file_that_is_open_and_removed_has_no_name_to_take(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        (tmp_path / "out").unlink()
        with pytest.raises(errors.Invalid, match="removed"):
            PartFile(Path(f"/dev/fd/{file.fileno()}"))
    assert os.listdir(tmp_path) == []


@pytest_twisted.ensureDeferred
async def test_too_little_room_is_told_before_the_first_byte(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    free = os.statvfs(tmp_path)
    size = free.f_bfree * free.f_frsize + 2**40
    server.scripts[f"GET {PATH}"] = serve_file(b"", Content_Length=size, ETag=f'"{SHA256}"')
    with pytest.raises(errors.NoRoom, match="there is room for"):
        await client.get_file(ImageRef("roger", "foo"), tmp_path / "out")
    assert server.paths() == [f"HEAD {PATH}"]
    assert os.listdir(tmp_path) == []


@pytest_twisted.ensureDeferred
async def test_what_fits_because_of_its_zeros_is_not_refused(
    server: ScriptedServer, client: RepositoryClient, tmp_path: Path
) -> None:
    free = os.statvfs(tmp_path)
    size = free.f_bfree * free.f_frsize + 2**40
    told = {"Content_Length": size, "ETag": f'"{SHA256}"', "Repoman_Stored_Size": 4096}
    server.scripts[f"HEAD {PATH}"] = serve_file(b"", **told)
    server.scripts[f"GET {PATH}"] = lambda asked: problem("NotPermitted", 403, "Asked for it.")
    with pytest.raises(errors.NotPermitted):
        await client.get_file(ImageRef("roger", "foo"), tmp_path / "out")


# Zeros

SPARSE = bytearray(8 * 2**20)
for block in (3, 700, 701, 2000):
    SPARSE[block * 4096 + 7 : block * 4096 + 4000] = random.Random(block).randbytes(3993)
DATA = 4 * 4096


@pytest.mark.parametrize("piece", [999, 4096, 16_384 - 29, 65_536 + 1, 8 * 2**20])
@pytest.mark.parametrize("start", [0, 12_345, 700 * 4096 + 100])
def test_zeros_cost_no_room_whatever_the_pieces_are(tmp_path: Path, piece: int, start: int) -> None:
    content = bytes(SPARSE)
    digest = hashlib.sha256(content).hexdigest()
    for begin, end in ((0, start), (start, len(content))):
        sink = PartFile(tmp_path / "out")
        sink.begin(digest, len(content))
        assert sink.size == begin
        for _ in sink.hash_what_is_there():
            pass
        for at in range(begin, end, piece):
            sink.write(content[at : min(at + piece, end)])
        if end == len(content):
            sink.finish()
        sink.close()
    assert (tmp_path / "out").read_bytes() == content
    assert (tmp_path / "out").stat().st_blocks * 512 <= DATA
