"""PostgreSQL as the daemon's child: what it is, and whom it lets in."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet import reactor

from repoman.database.account import choose_account
from tests.postgres import on_server, postgres_for_session

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="root alone can step down")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedded") / "state"


@pytest.fixture(scope="module")
def dsn(state: Path) -> Iterator[str]:
    with postgres_for_session(reactor, state) as dsn:
        yield dsn


@pytest.fixture
def pid(state: Path, dsn: str) -> int:
    return int((state / "database" / "data" / "postmaster.pid").read_text().split()[0])


def status(pid: int, name: str) -> list[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.startswith(f"{name}:"))


def setting(dsn: str, name: str) -> str:
    return str(on_server(dsn, f"SHOW {name}")[0][0])


def test_it_is_durable_and_speaks_utf8(dsn: str) -> None:
    wanted = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "lc_collate": "C",
    }
    collate = on_server(dsn, "SELECT datcollate FROM pg_database WHERE datname = 'repoman'")
    assert collate == [("C",)]
    del wanted["lc_collate"]
    assert {name: setting(dsn, name) for name in wanted} == wanted


def test_it_listens_on_a_socket_in_its_data_only(dsn: str, state: Path) -> None:
    assert setting(dsn, "listen_addresses") == ""
    sockets = [path for path in state.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]
    assert sockets == [state / "database" / "data" / ".s.PGSQL.5432"]
    assert stat.S_IMODE(sockets[0].lstat().st_mode) == 0o700


def test_our_role_is_no_superuser(dsn: str) -> None:
    assert on_server(dsn, "SELECT current_user, current_database()") == [("repoman", "repoman")]
    assert setting(dsn, "is_superuser") == "off"


def test_nothing_under_the_state_is_open_to_others(dsn: str, state: Path) -> None:
    paths = [state, *state.rglob("*")]
    assert len(paths) > 500
    assert [p for p in paths if not p.is_symlink() and p.lstat().st_mode & stat.S_IRWXO] == []


def test_its_log_is_ours_alone(dsn: str, state: Path) -> None:
    log = state / "log" / "postgresql.log"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert "ready to accept connections" in log.read_text()


def test_a_terminals_interrupt_does_not_reach_it(pid: int) -> None:
    assert os.getsid(pid) == pid


def test_it_inherits_neither_environment_nor_descriptors(pid: int) -> None:
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"PYTEST" not in environment
    targets = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
    assert not [target for target in targets if target.endswith("/lock")]


@as_root
def test_under_root_it_runs_without_privileges_in_a_group_of_its_own(pid: int, state: Path) -> None:
    account = choose_account(state / "database")
    assert account.foreign
    assert status(pid, "Uid") == [str(account.uid)] * 4
    assert status(pid, "Gid") == [str(account.gid)] * 4
    assert account.gid != pwd.getpwuid(account.uid).pw_gid
    assert status(pid, "Groups") == []
    assert status(pid, "NoNewPrivs") == ["1"]
    for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        assert int(status(pid, name)[0], 16) == 0


@as_root
def test_the_data_belongs_to_its_account_and_the_way_there_to_us(state: Path, dsn: str) -> None:
    account = choose_account(state / "database")
    base, data = (state / "database").stat(), (state / "database" / "data").stat()
    assert (base.st_uid, base.st_gid, stat.S_IMODE(base.st_mode)) == (0, account.gid, 0o710)
    assert (data.st_uid, data.st_gid, stat.S_IMODE(data.st_mode)) == (
        account.uid,
        account.gid,
        0o700,
    )


def connect_as(uid: int, gid: int, dsn: str) -> str:
    """Try to log in with a foreign identity; answer what became of it."""
    attempt = """
        import os, sys, psycopg2
        dsn, uid, gid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        try:
            psycopg2.connect(dsn)
            print("in")
        except psycopg2.OperationalError as error:
            print(error)
    """
    argv = [sys.executable, "-c", textwrap.dedent(attempt), dsn, str(uid), str(gid)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@as_root
def test_nobody_else_can_log_in(
    dsn: str, state: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    account = choose_account(state / "database")
    usual = pwd.getpwuid(account.uid)
    base = tmp_path_factory.getbasetemp()
    parents = [
        path for path in (*state.parents,) if path.is_relative_to(base) or path == base.parent
    ]
    modes = {path: path.stat().st_mode for path in parents}
    try:
        for path in parents:  # it is not they who keep strangers out
            path.chmod(0o711)
        assert "Permission denied" in connect_as(account.uid, usual.pw_gid, dsn)
        assert "Permission denied" in connect_as(12345, 12345, dsn)
        # Not even those who share everything with the server.
        assert "Peer authentication failed" in connect_as(account.uid, account.gid, dsn)
        superuser = dsn.replace("user=repoman", "user=postgres")
        assert "no pg_hba.conf entry" in connect_as(account.uid, account.gid, superuser)
        assert "no pg_hba.conf entry" in connect_as(0, 0, superuser)
        assert connect_as(0, 0, dsn) == "in\n"
    finally:
        for path, mode in modes.items():
            path.chmod(stat.S_IMODE(mode))
