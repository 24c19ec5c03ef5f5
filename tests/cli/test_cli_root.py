"""What root believes and writes: nothing that a stranger, or who called sudo, slips in."""

from __future__ import annotations

import hashlib
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from repoman.client.part_names import part_of
from repoman.client.settings import state_directory
from repoman.client.sudo import sudo_uid
from repoman.errors import Misconfigured
from tests.cli.conftest import Start
from tests.client.scripted import ScriptedServer, json_reply, problem, serve_file
from tests.credentials import Grid, name_hash

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

CALLER, STRANGER = 43210, 54321
"""Accounts that this machine does not know; the first calls sudo."""

UNDER_SUDO = {"SUDO_UID": str(CALLER), "SUDO_GID": str(CALLER), "SUDO_USER": "caller"}


async def ended(program: Any) -> tuple[int, str, str]:
    code = await program.ended
    assert "Traceback" not in program.err
    return code, program.out, program.err


@pytest.fixture
def place(tmp_path: Path, server: ScriptedServer) -> Path:
    """Where a caller reaches their own files."""
    for directory in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        directory.chmod(0o755)
    server.scripts["GET /api/whoami"] = lambda _: json_reply({"user_name": "impeyr"})
    return tmp_path


def laid(path: Path, owner: int, text: str | bytes) -> Path:
    """A file of somebody's."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(0o600)
    os.chown(path, owner, owner)
    return path


def credential(grid: Grid, place: Path, owner: int) -> dict[str, str]:
    """A proxy, and the halves of a pair, of which one is root's."""
    user = grid.user()
    user.write_pair(place / "cert", place / "key")
    user.proxy().write(place / "proxy")
    for name in ("cert", "key", "proxy"):
        os.chown(place / name, owner, owner)
    laid(place / "own-cert", 0, user.pem())
    laid(place / "own-key", 0, user.key_pem())
    (place / "link").symlink_to("proxy")
    laid(place / "conf", 0, f"[User]\nproxy_cert: {place}/proxy\n")
    return {"X509_USER_PROXY": ""}


WAYS: dict[str, tuple[list[str], dict[str, str]]] = {
    "option": (["--proxy", "proxy"], {}),
    "key": (["--cert", "own-cert", "--key", "key"], {}),
    "certificate": (["--cert", "cert", "--key", "own-key"], {}),
    "link": (["--proxy", "link"], {}),
    "variable": ([], {"X509_USER_PROXY": "proxy"}),
    "variables": ([], {"X509_USER_CERT": "cert", "X509_USER_KEY": "key"}),
    "configuration": ([], {"REPOMAN_CLIENT_CONFIG": "conf"}),
}


@pytest.mark.parametrize(
    ("way", "sudo", "owner"),
    [
        *((way, False, STRANGER) for way in WAYS),
        ("variable", False, CALLER),
        ("variable", True, STRANGER),
        ("variable", True, CALLER),
        ("certificate", True, CALLER),
    ],
)
@pytest_twisted.ensureDeferred
async def test_root_shows_no_credential_but_roots_and_the_sudo_callers(
    server: ScriptedServer, start: Start, grid: Grid, place: Path, way: str, sudo: bool, owner: int
) -> None:
    environ = credential(grid, place, owner) | WAYS[way][1] | (UNDER_SUDO if sudo else {})
    code, out, err = await ended(start(*WAYS[way][0], "whoami", **environ))
    if sudo and owner == CALLER:
        assert (code, out) == (0, "impeyr\n"), err
        return
    assert code == 4, (out, err)
    assert f"belongs to another user (uid {owner})" in err
    assert server.asked == []


@pytest_twisted.ensureDeferred
async def test_under_sudo_doctor_judges_by_the_callers_authority(
    start: Start, grid: Grid, place: Path
) -> None:
    garbage = grid.directory.path / f"{name_hash(grid.ca)}.namespaces"
    environ = credential(grid, place, CALLER) | {"X509_USER_PROXY": "proxy"} | UNDER_SUDO
    garbage.write_text("garbage")
    try:
        _, out, _ = await ended(start("doctor", **environ))
    finally:
        garbage.unlink()  # the directory is all tests'
    assert "[OK]     proxy: " in out
    assert "[FAILED] CA directory: " in out


@pytest.mark.parametrize("sudo", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_proxy_planted_in_the_usual_place_is_not_roots(
    server: ScriptedServer, start: Start, grid: Grid, place: Path, sudo: bool
) -> None:
    planted = Path(f"/tmp/x509up_u{CALLER if sudo else 0}")
    if planted.exists():
        pytest.skip(f"{planted} is somebody's")
    environ = {"X509_USER_PROXY": "", **(UNDER_SUDO if sudo else {})}
    try:
        os.chown(grid.user().proxy().write(planted), STRANGER, STRANGER)
        code, _, err = await ended(start("create-image", "vm", **environ))
    finally:
        planted.unlink()
    assert (code, f"{planted} belongs to another user" in err) == (4, True), err
    assert server.asked == []


@pytest.mark.parametrize(
    "number", ["abc", "-1", "1 ", "1e3", "4294967295", "9" * 5000, "٣", "../x"]
)
def test_what_is_no_accounts_number_is_refused(number: str) -> None:
    with pytest.raises(
        Misconfigured, match=r"\$SUDO_UID is '.{0,102}, which is no account's number"
    ):
        sudo_uid({"SUDO_UID": number})
    assert sudo_uid({"SUDO_UID": number}, uid=1000) is None


@pytest.mark.parametrize("number", ["-1", "../x"])
@pytest_twisted.ensureDeferred
async def test_what_is_no_accounts_number_is_told_in_one_line(
    server: ScriptedServer, start: Start, place: Path, number: str
) -> None:
    code, _, err = await ended(start("whoami", SUDO_UID=number))
    assert (code, server.asked) == (2, []), err
    assert "$SUDO_UID is" in err
    assert len(err.splitlines()) == 2


@pytest.mark.parametrize("number", ["0", ""])
@pytest_twisted.ensureDeferred
async def test_root_who_calls_sudo_is_root(
    server: ScriptedServer, start: Start, place: Path, number: str
) -> None:
    assert await ended(start("whoami", SUDO_UID=number, SUDO_USER="root")) == (0, "impeyr\n", "")


@pytest.mark.parametrize("owner", [STRANGER, CALLER])
@pytest_twisted.ensureDeferred
async def test_root_obeys_no_strangers_configuration(
    server: ScriptedServer, start: Start, place: Path, owner: int
) -> None:
    conf = laid(place / "conf", owner, "[Repository]\nport: 1\n")
    code, _, err = await ended(start("whoami", REPOMAN_CLIENT_CONFIG=str(conf), **UNDER_SUDO))
    assert code == (0 if owner == CALLER else 2), err
    assert (f"uid {owner}" in err) == (owner == STRANGER)


def shared(place: Path, mode: int = 0o1777) -> Path:
    directory = place / "shared"
    directory.mkdir()
    directory.chmod(mode)
    return directory


@pytest.mark.parametrize("what", ["file", "link", "pipe", "directory"])
@pytest_twisted.ensureDeferred
async def test_under_sudo_no_log_goes_where_the_caller_could_not_write(
    server: ScriptedServer, start: Start, place: Path, what: str
) -> None:
    victim, logs = laid(place / "victim", 0, "root's\n"), place / "logs"
    logs.mkdir()
    if what != "directory":
        os.chown(logs, CALLER, CALLER)
    if what == "link":
        (logs / "repoman.log").symlink_to(victim)
    elif what == "file":
        os.link(victim, logs / "repoman.log")
    elif what == "pipe":
        os.mkfifo(logs / "repoman.log", 0o600)
    conf = laid(place / "conf", CALLER, f"[Logger]\nenabled: true\ndir: {logs}\n")
    code, out, err = await ended(start("whoami", REPOMAN_CLIENT_CONFIG=str(conf), **UNDER_SUDO))
    assert (code, out) == (0, "impeyr\n"), err
    assert err.startswith(f"No log is written to {logs}/repoman.log: "), err
    assert victim.read_text() == "root's\n"
    assert what != "directory" or not list(logs.iterdir())


@pytest_twisted.ensureDeferred
async def test_under_sudo_the_log_is_the_callers(
    server: ScriptedServer, start: Start, place: Path
) -> None:
    (place / "own").mkdir()
    os.chown(place / "own", CALLER, CALLER)
    conf = laid(place / "conf", CALLER, f"[Logger]\nenabled: true\ndir: {place}/own/logs\n")
    for _ in range(2):
        got = await ended(start("whoami", REPOMAN_CLIENT_CONFIG=str(conf), **UNDER_SUDO))
        assert got == (0, "impeyr\n", "")
    log = place / "own/logs/repoman.log"
    assert log.read_text().count("whoami begins") == 2
    assert log.stat().st_uid == CALLER


@pytest.mark.parametrize("what", ["link", "pipe", "file"])
@pytest_twisted.ensureDeferred
async def test_no_log_goes_into_what_a_stranger_left_in_a_shared_directory(
    server: ScriptedServer, start: Start, place: Path, what: str
) -> None:
    logs, victim = shared(place), laid(place / "victim", 0, "root's\n")
    log = logs / "repoman.log"
    if what == "link":
        log.symlink_to(victim)
    elif what == "pipe":
        os.mkfifo(log, 0o666)
    else:
        laid(log, STRANGER, "")
    os.chown(log, STRANGER, STRANGER, follow_symlinks=False)
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    conf = laid(place / "conf", 0, f"[Logger]\nenabled: true\ndir: {logs}\n")
    code, out, err = await ended(start("whoami", REPOMAN_CLIENT_CONFIG=str(conf)))
    assert (code, out, "Somebody else has laid it there" in err) == (0, "impeyr\n", True), err
    assert os.read(reader, 100) == (b"root's\n" if what == "link" else b"")
    os.close(reader)


@pytest_twisted.ensureDeferred
async def test_what_a_server_says_makes_no_lines_in_the_log(
    server: ScriptedServer, start: Start, place: Path
) -> None:
    server.scripts["GET /api/whoami"] = lambda _: problem(
        "Missing", 404, "Gone\n1970 [-] forged\x1b"
    )
    conf = laid(place / "conf", 0, f"[Logger]\nenabled: true\ndir: {place}/logs\n")
    await ended(start("whoami", REPOMAN_CLIENT_CONFIG=str(conf)))
    assert "Gone?1970 [-] forged?\n" in (place / "logs/repoman.log").read_text()


@pytest_twisted.ensureDeferred
async def test_make_config_writes_through_no_link(
    server: ScriptedServer, start: Start, place: Path
) -> None:
    victim, home = laid(place / "victim", 0, "root's\n"), place / "home/.repoman"
    home.mkdir()
    (home / "repoman.conf.new").symlink_to(victim)
    code, _, err = await ended(start("make-config"))
    assert (code, victim.read_text()) == (0, "root's\n"), err
    assert "[Repository]" in (home / "repoman.conf").read_text()


def test_under_sudo_what_root_remembers_lies_where_the_caller_names_nothing(place: Path) -> None:
    """``sudo -E`` brings the caller's ``$HOME`` and ``$XDG_STATE_HOME`` along."""
    name = next(entry.pw_name for entry in pwd.getpwall() if entry.pw_uid != 0)
    named = {"SUDO_USER": name, "HOME": str(place), "XDG_STATE_HOME": str(place)}
    root = Path(pwd.getpwuid(0).pw_dir)
    assert state_directory(named) == root / ".local/state/repoman"
    assert state_directory({**named, "SUDO_USER": "root"}) == place / "repoman"


PLACES: list[dict[str, str]] = [
    {"snapshot_dir": "victims"},
    {"snapshot_dir": "victims", "snapshot": "victim"},
    {"snapshot": "{place}/victims/victim"},
    {"snapshot": "../victims/victim"},
    {"lockfile": "{place}/victims/lock"},
    {"mountpoint": "{place}/victims"},
    {"snapshot_dir": "callers/link", "snapshot": "victim"},
    {"snapshot_dir": "callers/new"},
    {"snapshot": "{place}/callers/new/img"},
    {"mountpoint": "{place}/callers/new"},
]


@pytest.mark.parametrize(
    "places", PLACES, ids=lambda places: " ".join(f"{k}={v}" for k, v in places.items())
)
@pytest_twisted.ensureDeferred
async def test_under_sudo_no_snapshot_overwrites_what_the_caller_could_not(
    server: ScriptedServer, start: Start, place: Path, places: dict[str, str]
) -> None:
    victims, callers, system = place / "victims", place / "callers", place / "system"
    for directory in (victims, callers, system):
        directory.mkdir(mode=0o755)
    victim = laid(victims / "victim", 0, "root's\n")
    (callers / "link").symlink_to(victims)
    os.chown(callers, CALLER, CALLER)
    stated = {"snapshot_dir": "own", **places}
    stated["snapshot_dir"] = str(place / stated["snapshot_dir"])
    lines = "".join(f"{key}: {value.format(place=place)}\n" for key, value in stated.items())
    conf = laid(place / "conf", CALLER, f"[ThisImage]\n{lines}")
    code, out, err = await ended(
        start("save", "vm", "--root", "system", REPOMAN_CLIENT_CONFIG=str(conf), **UNDER_SUDO)
    )
    assert (code, out) == (6, ""), err
    assert err.startswith("Into the account of impeyr.\n")
    assert "snapshot_dir in" in err or "name a new directory" in err
    assert [*victims.iterdir()] == [victim]
    assert victim.read_text() == "root's\n"
    assert os.listdir(callers) == ["link"]
    assert server.paths() == ["GET /api/whoami"]


@pytest.mark.parametrize(
    ("owner", "named"),
    [(CALLER, "planted"), (STRANGER, "planted"), (STRANGER, "planted/below")],
)
@pytest_twisted.ensureDeferred
async def test_save_follows_no_link_that_somebody_planted_for_its_directory(
    server: ScriptedServer, start: Start, place: Path, owner: int, named: str
) -> None:
    """As in ``/var/tmp``, where the usual one lies: root would write wherever it leads."""
    common, victims, system = shared(place), place / "victims", place / "system"
    for directory in (victims, system):
        directory.mkdir(mode=0o755)
    (common / "planted").symlink_to(victims)
    os.chown(common / "planted", owner, owner, follow_symlinks=False)
    conf = laid(place / "conf", 0, f"[ThisImage]\nsnapshot_dir: {common}/{named}\n")
    code, _, err = await ended(
        start("save", "vm", "--root", "system", REPOMAN_CLIENT_CONFIG=str(conf), **UNDER_SUDO)
    )
    assert code != 0
    assert "planted" in err
    assert [*victims.iterdir()] == []


CONTENT = b"a private image's bytes"


@pytest.mark.parametrize(
    ("what", "mode"),
    [
        ("link", 0o1777),
        ("link to nowhere", 0o1777),
        ("link to a directory", 0o777),
        ("pipe", 0o1777),
        ("pipe", 0o777),
        ("pipe", 0o1775),
        ("part", 0o1777),
    ],
)
@pytest_twisted.ensureDeferred
async def test_get_writes_into_nothing_that_a_stranger_left(
    server: ScriptedServer, start: Start, place: Path, what: str, mode: int
) -> None:
    server.scripts["GET /api/images/raw/vm"] = serve_file(CONTENT)
    directory, victim = shared(place, mode), laid(place / "victim", 0, "root's\n")
    target = directory / "vm"
    theirs = part_of(target, hashlib.sha256(CONTENT).hexdigest()) if what == "part" else target
    reader = None
    if what == "pipe":
        os.mkfifo(theirs, 0o666)
        reader = os.open(theirs, os.O_RDONLY | os.O_NONBLOCK)
    elif what == "part":
        laid(theirs, STRANGER, b"")
    else:
        aim = {"link": victim, "link to nowhere": place / "new", "link to a directory": place / "d"}
        (place / "d").mkdir()
        theirs.symlink_to(aim[what])
    os.chown(theirs, STRANGER, STRANGER, follow_symlinks=False)
    code, out, err = await ended(start("get", "vm", "-d", str(target)))
    assert (code, out) == (1, ""), err
    assert "remove it, or choose another place" in err
    assert victim.read_text() == "root's\n"
    assert not (place / "new").exists()
    assert os.listdir(place / "d") == [] if what.startswith("link") else True
    if reader is not None:
        assert os.read(reader, 100) == b""
        os.close(reader)
    assert what != "part" or theirs.read_bytes() == b""


@pytest.mark.parametrize("owner", [0, CALLER])
@pytest.mark.parametrize("what", ["link", "pipe", "/dev/null", "/dev/stdout"])
@pytest_twisted.ensureDeferred
async def test_get_writes_into_what_is_ones_own(
    server: ScriptedServer, start: Start, place: Path, what: str, owner: int
) -> None:
    server.scripts["GET /api/images/raw/vm"] = serve_file(CONTENT)
    target = Path(what) if what.startswith("/") else shared(place) / "vm"
    reader = None
    if what == "link":
        target.symlink_to(laid(place / "own", 0, "old"))
    elif what == "pipe":
        os.mkfifo(target, 0o600)
        reader = os.open(target, os.O_RDONLY | os.O_NONBLOCK)
    if not what.startswith("/"):
        os.chown(target, owner, owner, follow_symlinks=False)
    code, out, err = await ended(
        start("get", "vm", "-d", str(target), **(UNDER_SUDO if owner else {}))
    )
    assert (code, err) == (0, "")
    assert out == (CONTENT.decode() if what == "/dev/stdout" else "")
    assert what != "link" or (place / "own").read_bytes() == CONTENT
    if reader is not None:
        assert os.read(reader, 100) == CONTENT
        os.close(reader)
