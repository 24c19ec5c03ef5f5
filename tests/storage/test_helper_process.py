"""The helper process: alone, independent, replaceable, and gone with its daemon."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from directory_store import MIB, Tracing, frozen, get, keys, pid, put, reactor, until
from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.internet.task import deferLater
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

import repoman
from repoman.errors import StoreUnavailable
from repoman.interfaces import new_key
from repoman.storage import flusher
from repoman.storage.directory import DirectoryStore


@pytest.fixture
def faults() -> Iterator[list[str]]:
    """What the log has as a fault of ours meanwhile."""
    seen: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if event["log_level"] >= LogLevel.critical:
            seen.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


def running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def children(process: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


async def kill(store: DirectoryStore) -> None:
    """Kill the helper process and wait for the next one."""
    before = pid(store)
    os.kill(before, signal.SIGKILL)
    await until(lambda: store._flusher._life is None)
    await until(lambda: store._flusher._life is not None)
    assert pid(store) != before


@pytest_twisted.ensureDeferred
async def test_killed_with_a_commit_at_hand_it_acknowledges_nothing(
    store: DirectoryStore,
) -> None:
    await put(store, before := new_key(), b"before")
    writer = await store.create(new_key(), 3)
    writer.write(b"abc")
    with frozen(helper := pid(store)):
        committing = ensureDeferred(writer.commit())
        os.kill(helper, signal.SIGKILL)
    with pytest.raises(StoreUnavailable):
        await committing
    await until(lambda: store._flusher._life is not None)
    await writer.discard()
    assert await keys(store) == [(before, True)]
    assert await get(store, before, 6) == b"before"


@pytest_twisted.ensureDeferred
async def test_killed_in_mid_commit_it_acknowledges_nothing_and_leaves_nothing(
    store: DirectoryStore, tracing: Tracing, root: Path
) -> None:
    writer = await store.create(key := new_key(), 3)
    writer.write(b"abc")
    slow = ("-e", "trace=fdatasync,rename", "-e", "inject=fdatasync:delay_exit=700000")
    with tracing(helper := pid(store), *slow) as log:
        committing = ensureDeferred(writer.commit())
        await until(lambda: children(helper))
        (fork,) = children(helper)
        os.kill(helper, signal.SIGKILL)
        with pytest.raises(StoreUnavailable):
            await committing
        assert running(fork)
        await until(lambda: store._flusher._life is not None)
        await writer.discard()
        await until(lambda: not running(fork))
    assert "rename" in log.read_text()  # the late fork tried, and found nothing to rename
    assert await keys(store) == []
    assert not list(root.rglob(key))


@pytest_twisted.ensureDeferred
async def test_a_fork_that_dies_costs_one_request_only(
    store: DirectoryStore, tracing: Tracing
) -> None:
    helper = pid(store)
    one, other = [await store.create(new_key(), 3) for _ in range(2)]
    with (
        tracing(helper, "-e", "inject=rename:signal=SIGKILL:when=1"),
        pytest.raises(StoreUnavailable),
    ):
        await one.commit()
    await one.discard()
    await other.commit()
    assert await keys(store) == [(other.key, True)]
    assert pid(store) == helper


@pytest_twisted.ensureDeferred
async def test_an_upload_that_outlives_its_helper_process_is_refused(
    store: DirectoryStore,
) -> None:
    """The new one may have missed an error of the disk."""
    writer = await store.create(new_key(), 3)
    writer.write(b"abc")
    await kill(store)
    with pytest.raises(StoreUnavailable):
        await writer.commit()
    await writer.discard()
    assert await keys(store) == []


@pytest_twisted.ensureDeferred
async def test_without_it_the_store_is_unavailable_until_it_is_back(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(store, key := new_key(), b"abc")
    pauses = []
    for _ in range(3):
        pauses.append(store._flusher._pause)
        os.kill(pid(store), signal.SIGKILL)
        await until(lambda: store._flusher._life is None)
        for request in (store.open(key, 3), store.create(new_key(), 3), store.delete(new_key())):
            with pytest.raises(StoreUnavailable, match="try again"):
                await request
        await until(lambda: store._flusher._life is not None)
    assert pauses == [flusher.FIRST_RESTART * 2**n for n in range(3)]
    assert await get(store, key, 3) == b"abc"
    assert store._flusher._pause == flusher.FIRST_RESTART


@pytest_twisted.ensureDeferred
async def test_it_is_started_again_also_when_that_fails_at_first(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(flusher.sys, "executable", "/nowhere/python")
        os.kill(pid(store), signal.SIGKILL)
        await until(lambda: store._flusher._pause > flusher.FIRST_RESTART * 2)
    for _ in range(100):
        with suppress(StoreUnavailable):
            return await put(store, new_key(), b"abc")
        await deferLater(reactor, 0.05)
    pytest.fail("it did not come back")


@pytest_twisted.ensureDeferred
async def test_a_slow_sync_holds_up_nobody_else(store: DirectoryStore, tracing: Tracing) -> None:
    slow, dropped = [await store.create(new_key(), 3) for _ in range(2)]
    with tracing(pid(store), "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=3000000"):
        committing = ensureDeferred(slow.commit())
        await until(lambda: children(pid(store)))
        await dropped.discard()
        assert await keys(store) == [(slow.key, False)]
        assert not committing.called
        await committing
    assert await keys(store) == [(slow.key, True)]


@pytest_twisted.ensureDeferred
async def test_a_cancelled_request_is_answered_into_the_void(store: DirectoryStore) -> None:
    """Also when the cancelled creation and a deletion overtake each other."""
    helper = pid(store)
    for _ in range(20):
        creating = ensureDeferred(store.create(key := new_key(), 3))
        creating.cancel()
        with pytest.raises(CancelledError):
            await creating
        await store.delete(key)
    for key, _ in await keys(store):
        await store.delete(key)
    assert await keys(store) == []
    assert pid(store) == helper


@pytest_twisted.ensureDeferred
async def test_it_outlives_the_signals_that_ask_the_daemon_to_stop(store: DirectoryStore) -> None:
    helper = pid(store)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(helper, signum)
    await put(store, new_key(), b"abc")
    assert pid(store) == helper


@pytest_twisted.ensureDeferred
async def test_it_holds_no_descriptor_of_the_daemons_and_leaks_none(
    store: DirectoryStore, root: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.set_inheritable(True)
        await kill(store)
        writers = [await store.create(new_key(), MIB) for _ in range(5)]
        opened = {os.readlink(link) for link in Path(f"/proc/{pid(store)}/fd").iterdir()}
        assert {str(root / "incoming" / writer.key) for writer in writers} <= opened
        await writers[0].commit()
        await store.delete(writers[1].key)
        for writer in writers:
            await writer.discard()
        left = {os.readlink(link) for link in Path(f"/proc/{pid(store)}/fd").iterdir()}
    # Three pipes, and the socket on which descriptors come to be closed.
    assert sorted(name.partition(":")[0] for name in left) == ["pipe", "pipe", "pipe", "socket"]
    assert children(pid(store)) == []


@pytest_twisted.ensureDeferred
async def test_deleted_bytes_are_freed_when_the_last_reader_closes(small_disk: Path) -> None:
    """But not by the daemon: that takes long."""
    store = DirectoryStore(reactor, small_disk, repository_id="this")
    await store.start()
    empty = store.room()
    await put(store, key := new_key(), b"x" * (8 * MIB))
    reader = await store.open(key, 8 * MIB)
    await store.delete(key)
    with frozen(pid(store)):
        reader.close()
        assert store.room().free <= empty.free - 8 * MIB
    await until(lambda: store.room() == empty)
    await until(lambda: children(pid(store)) == [])
    await store.stop()


@pytest_twisted.ensureDeferred
async def test_long_work_on_one_file_does_not_keep_others_from_being_freed(
    small_disk: Path,
) -> None:
    store = DirectoryStore(reactor, small_disk, repository_id="this")
    await store.start()
    await put(store, key := new_key(), b"x" * (4 * MIB))
    before = store.room()
    writer = await store.create(new_key(), 8 * MIB)
    digesting = ensureDeferred(store.digests(key, "md5", rate=10 * MIB))
    await until(lambda: children(pid(store)))
    await writer.discard()
    await until(lambda: store.room() == before, seconds=0.2)
    assert not digesting.called
    await digesting
    await store.stop()


@pytest_twisted.ensureDeferred
async def test_stopping_ends_it_and_fails_what_is_under_way(
    store: DirectoryStore, tracing: Tracing
) -> None:
    helper = pid(store)
    with frozen(helper):
        listing = ensureDeferred(keys(store))
        stopping = [ensureDeferred(store.stop()) for _ in range(2)]
    with pytest.raises(StoreUnavailable):
        await listing
    for one in stopping:
        await one
    assert not running(helper)
    await store.stop()


DAEMON = """
import sys
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from repoman.storage.directory import DirectoryStore

async def main():
    store = DirectoryStore(reactor, Path(sys.argv[1]), repository_id="this")
    await store.start()
    await store.create("0" * 32, 1000)
    print(store._flusher._life.transport.pid, flush=True)

ensureDeferred(main())
reactor.run()
"""


def test_it_ends_when_the_daemon_is_killed(root: Path) -> None:
    where = {"PYTHONPATH": str(Path(repoman.__file__).parent.parent)}
    command = [sys.executable, "-c", DAEMON, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=where) as daemon:
        assert daemon.stdout is not None
        helper = int(daemon.stdout.readline())
        assert running(helper)
        daemon.kill()
    for _ in range(100):
        if not running(helper):
            break
        subprocess.run(["sleep", "0.02"], check=True)
    assert not running(helper)


def test_it_starts_with_nothing_but_the_standard_library() -> None:
    show = (
        "import sys; sys.path.append(sys.argv[1]); import repoman.storage.flush_process; "
        "print(*sys.modules)"
    )
    command = [sys.executable, "-I", "-S", "-c", show, flusher.PACKAGES]
    modules = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
    assert "socket" in modules
    assert {name.partition(".")[0] for name in modules} <= sys.stdlib_module_names | {
        "__main__",
        "repoman",
    }
    assert not {"asyncio", "hashlib", "subprocess", "typing_extensions"} & set(modules)


@pytest_twisted.ensureDeferred
async def test_what_it_had_answered_before_its_end_is_no_fault_of_ours(
    store: DirectoryStore, faults: list[str]
) -> None:
    life = store._flusher._life
    assert life is not None
    life.transport.pauseProducing()
    asking = ensureDeferred(store.delete(new_key()))
    await deferLater(reactor, 0.3)  # the answer is in the pipe
    os.kill(pid(store), signal.SIGKILL)
    with pytest.raises(StoreUnavailable):
        await asking
    life.transport.resumeProducing()
    await until(lambda: store._flusher._life is not None)
    await deferLater(reactor, 0.1)
    assert faults == []
