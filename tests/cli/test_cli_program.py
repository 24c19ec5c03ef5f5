"""The program as a person meets it: a child process, over real TLS."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from repoman.cli import local
from repoman.client.part_names import part_of
from tests.cli.conftest import ROOT, Start
from tests.client.scripted import (
    CLOSE,
    SILENCE,
    Asked,
    ScriptedServer,
    json_reply,
    problem,
    reply,
    serve_file,
    whole,
)
from tests.credentials import HOUR, Grid, now

CONTENT = random.Random(3).randbytes(2_000_000)
USER = {"user_name": "impeyr"}
RAW = "/api/images/raw/vm"


def image(**known: Any) -> dict[str, Any]:
    """An image's record."""
    return {
        "name": "vm", "owner_user_name": "impeyr", "hypervisor": "xen", "size": None,
        "modified": None, "description": None, "raw_file_uploaded": False, "files": {},
        "checksum": {"type": None, "value": None}, **known,
    }  # fmt: skip


async def ended(program: Any) -> tuple[int, str, str]:
    code = await program.ended
    return code, program.out, program.err


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["--help-all"], ["get", "-h"]])
def test_help_and_version_import_nothing_of_twisted(words: list[str]) -> None:
    script = (
        "import sys; from repoman.cli.main import main; code = main(sys.argv[1:]);"
        "print('loaded:', [m for m in sys.modules"
        " if m.split('.')[0] in ('twisted', 'treq', 'OpenSSL', 'cryptography')]);"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.endswith("loaded: []\n")
    assert len(done.stdout.splitlines()) > 1


@pytest_twisted.ensureDeferred
async def test_no_name_plays_with_the_terminal(server: ScriptedServer, start: Start) -> None:
    evil = {"user_name": "\x1b[2Jr", "images": ["https://x/r/\x1b]0;x\x07"]}
    server.scripts["GET /api/whoami"] = lambda _: json_reply(evil)
    assert await ended(start("whoami")) == (0, "?[2Jr\n", "")
    assert await ended(start("list")) == (0, "r/?]0;x?\n", "")


@pytest.mark.parametrize(("encoding", "printed"), [("ascii", "Gr\\xfcn"), ("utf-8", "Grün")])
@pytest_twisted.ensureDeferred
async def test_every_text_can_be_printed(
    server: ScriptedServer, start: Start, encoding: str, printed: str
) -> None:
    server.scripts["GET /api/images/vm"] = lambda _: json_reply(image(description="Grün"))
    code, out, err = await ended(start("list-images", "vm", PYTHONIOENCODING=encoding))
    assert (code, err) == (0, "")
    assert f"description : {printed}\n" in out


@pytest.mark.parametrize(
    "words", [["get", "\udcff"], ["li", "-o", "\udcff"]], ids=["path", "query"]
)
def test_words_that_are_no_text_are_a_usage_error(words: list[str], grid: Grid) -> None:
    environ = {
        "PYTHONPATH": str(ROOT), "X509_USER_PROXY": str(grid.place / "x509up"),
        "X509_CERT_DIR": str(grid.directory.path),
    }  # fmt: skip
    command = [sys.executable, "-m", "repoman.cli", "-H", "localhost:1", *words]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is no text that could be sent" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("words", "code"), [("version", 0), ("delete vm", 2), ("nonsense", 2)])
def test_closed_standard_streams_are_no_trouble(closed: str, words: str, code: int) -> None:
    command = f"{sys.executable} -m repoman.cli {words} {closed}"
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.PIPE
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_results_that_cannot_be_written_are_a_failure() -> None:
    # Whether Python keeps a buffer decides when it fails.
    usual = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    for words in (["--version"], ["version"], ["version", "--json"], ["--help-all"]):
        for more in ({}, {"PYTHONUNBUFFERED": "1"}):
            with open("/dev/full", "w") as full:
                command = [sys.executable, "-m", "repoman.cli", *words]
                done = subprocess.run(
                    command, cwd=ROOT, env={**usual, **more}, stdout=full, stderr=subprocess.PIPE,
                    text=True,
                )  # fmt: skip
            assert done.returncode == 1
            assert done.stderr.count("No space left on device") == 1
            assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stage", ["handshake", "reply", "head", "body"])
@pytest.mark.parametrize(
    ("line", "route"),
    [("whoami", "GET /api/whoami"), ("list -a", "GET /api/images"), ("get vm", f"GET {RAW}"),
     ("put disk vm", "GET /api/images/vm")],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_whatever_it_waits_for_it_can_be_interrupted(
    server: ScriptedServer, start: Start, disk: Path, stage: str, line: str, route: str
) -> None:
    file = serve_file(CONTENT)(Asked("GET", RAW, {}))
    said = {"reply": SILENCE, "head": file[:30], "body": file[: -len(CONTENT) + 10]}
    server.scripts[route] = lambda _: said[stage]
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.setblocking(False)
        port = mute.getsockname()[1]
        program = start(
            *(["-H", f"localhost:{port}"] if stage == "handshake" else []), *line.split()
        )
        while not (select.select([mute], [], [], 0)[0] or server.asked):
            assert not program.ended.called, program.err
            await deferLater(reactor, 0.05)
        await deferLater(reactor, 0.2)
        program.transport.signalProcess("INT")
        code = await program.ended.addTimeout(5, reactor)
    assert (code, program.out, program.err) == (130, "", "Interrupted.\n")


@pytest_twisted.ensureDeferred
async def test_a_signal_before_the_reactor_runs_is_130_too(start: Start, tmp_path: Path) -> None:
    # It waits for the FIFO's writer while it reads its configuration.
    os.mkfifo(tmp_path / "conf")
    program = start("whoami", REPOMAN_CLIENT_CONFIG=str(tmp_path / "conf"))
    await deferLater(reactor, 1.0)
    program.transport.signalProcess("TERM")
    assert await ended(program) == (130, "", "Interrupted.\n")


@pytest_twisted.ensureDeferred
async def test_an_interruption_as_json(server: ScriptedServer, start: Start) -> None:
    server.scripts["GET /api/whoami"] = lambda _: SILENCE
    program = start("whoami", "--json")
    while not server.asked:
        assert not program.ended.called, program.err
        await deferLater(reactor, 0.05)
    program.transport.signalProcess("INT")
    code, out, err = await ended(program)
    assert (code, out) == (130, "")
    assert (json.loads(err)["failed"], json.loads(err)["exit_code"]) == ("Interrupted.", 130)


@pytest_twisted.ensureDeferred
async def test_nothing_to_do_is_a_usage_error(start: Start) -> None:
    code, out, err = await ended(start())
    assert (code, out) == (2, "")
    assert "SUBCOMMANDS" in err


@pytest_twisted.ensureDeferred
async def test_json_is_all_there_is_on_stdout(server: ScriptedServer, start: Start) -> None:
    server.scripts["GET /api/whoami"] = lambda _: json_reply(USER)
    code, out, err = await ended(start("whoami", "--json"))
    assert (code, json.loads(out), err) == (0, USER, "")


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (problem("Missing", 404, "There is no image."), 3, "There is no image."),
        (problem("NotIdentified", 403, "Unknown DN /CN=x."), 4, "Unknown DN /CN=x."),
        (problem("NotPermitted", 403, "Only the owner may."), 5, "Only the owner may."),
        (problem("AlreadyExists", 409, "Taken."), 6, "Taken."),
        (problem("Invalid", 400, "Bad name."), 1, "Bad name."),
        (reply(400, b'The "x" image metadata does not exist.'), 1, 'The "x" image metadata'),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_refusal_has_its_exit_code(
    server: ScriptedServer, start: Start, answer: bytes, code: int, words: str
) -> None:
    server.scripts["POST /api/images/vm"] = lambda _: answer
    got, out, err = await ended(start("rename", "vm", "new"))
    assert (got, out) == (code, "")
    assert err.startswith(f"[FAILED] Renaming image.\n         {words}")
    assert f"Server localhost:{server.port}, credential " in err


@pytest_twisted.ensureDeferred
async def test_nobody_there_is_7(start: Start) -> None:
    code, out, err = await ended(start("-H", "localhost:1", "-P", "1", "whoami"))
    assert (code, out) == (7, "")
    assert "Nothing listens at localhost:1" in err


@pytest.mark.parametrize("trouble", ["missing", "expired", "open", "none"])
@pytest_twisted.ensureDeferred
async def test_a_bad_credential_is_4_with_the_remedy(
    grid: Grid, server: ScriptedServer, start: Start, tmp_path: Path, trouble: str
) -> None:
    path = tmp_path / "x509up"
    ends = now() - HOUR if trouble == "expired" else now() + HOUR
    if trouble != "missing":
        grid.user().proxy(begins=now() - 2 * HOUR, ends=ends).write(path)
    if trouble == "open":
        path.chmod(0o640)
    if trouble == "none":
        # No file of this uid is in /tmp.
        program = start("whoami", X509_USER_PROXY="", SUDO_UID="987654321")
    else:
        program = start("whoami", X509_USER_PROXY=str(path))
    code, out, err = await ended(program)
    assert (code, out, server.asked) == (4, "", [])
    assert ("chmod 600" if trouble == "open" else "grid-proxy-init") in err


@pytest_twisted.ensureDeferred
async def test_get_writes_the_file_and_nothing_else(
    server: ScriptedServer, start: Start, tmp_path: Path
) -> None:
    server.scripts[f"GET {RAW}"] = serve_file(CONTENT)
    assert await ended(start("get", "vm")) == (0, "", "")
    assert (tmp_path / "vm").read_bytes() == CONTENT
    (tmp_path / "images").mkdir()
    assert (await ended(start("get", "vm", "-d", "images")))[0] == 0
    assert (tmp_path / "images" / "vm").read_bytes() == CONTENT


@pytest_twisted.ensureDeferred
async def test_wrong_bytes_are_8_and_no_file(
    server: ScriptedServer, start: Start, tmp_path: Path
) -> None:
    server.scripts[f"GET {RAW}"] = serve_file(CONTENT, ETag=f'"{"0" * 64}"', Repr_Digest=None)
    code, out, err = await ended(start("get", "vm"))
    assert (code, out) == (8, "")
    assert "thrown away" in err
    assert os.listdir(tmp_path) == ["home"]


@pytest_twisted.ensureDeferred
async def test_a_place_that_takes_no_file_is_told(
    server: ScriptedServer, start: Start, tmp_path: Path
) -> None:
    server.scripts[f"GET {RAW}"] = serve_file(CONTENT)
    code, _, err = await ended(start("get", "vm", "-d", "/proc/vm"))
    assert code == 1
    assert "/proc/vm@sha256-" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest_twisted.ensureDeferred
async def test_an_interrupted_download_is_taken_up_again(
    server: ScriptedServer, start: Start, tmp_path: Path, number: int
) -> None:
    def stall(asked: Asked) -> bytes:
        return serve_file(CONTENT)(asked)[:-1_000_000]

    server.scripts[f"GET {RAW}"] = [stall, serve_file(CONTENT)]
    server.scripts[f"HEAD {RAW}"] = serve_file(CONTENT)
    program = start("get", "vm")
    part = part_of(tmp_path / "vm", hashlib.sha256(CONTENT).hexdigest())
    while not (part.exists() and part.stat().st_size > 500_000):
        assert not program.ended.called, program.err
        await deferLater(reactor, 0.05)
    program.transport.signalProcess(number)
    assert await ended(program) == (130, "", "Interrupted.\n")
    came = part.stat().st_size
    assert part.read_bytes() == CONTENT[:came]
    assert not (tmp_path / "vm").exists()
    assert (await ended(start("get", "vm")))[0] == 0
    assert (tmp_path / "vm").read_bytes() == CONTENT
    assert server.asked[-1].headers["range"] == f"bytes={came}-"


def scripted_upload(server: ScriptedServer, before: Any, after: Any) -> None:
    server.scripts["GET /api/images/vm"] = [
        lambda _: json_reply(before), lambda _: json_reply(after)
    ]  # fmt: skip
    server.scripts[f"PUT {RAW}"] = whole(lambda _: reply(200) + CLOSE)


def with_file(sha256: str) -> dict[str, Any]:
    return image(raw_file_uploaded=True, checksum={"type": "sha256", "value": sha256})


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "disk").write_bytes(b"disk")
    return tmp_path / "disk"


@pytest_twisted.ensureDeferred
async def test_a_file_for_several_hypervisors_is_for_one_of_them(
    server: ScriptedServer, start: Start, disk: Path
) -> None:
    server.scripts["GET /api/images/vm"] = lambda _: json_reply(image(hypervisor="kvm,xen"))
    code, out, err = await ended(start("put", "disk", "vm"))
    assert (code, out) == (2, "")
    assert "Image vm is for kvm and xen: say --hypervisor" in err


OTHER = hashlib.sha256(b"other").hexdigest()
"""Not the digest of what we send."""


@pytest_twisted.ensureDeferred
async def test_an_upload_is_compared_with_what_the_server_stored(
    server: ScriptedServer, start: Start, disk: Path
) -> None:
    scripted_upload(server, image(), with_file(hashlib.sha256(b"disk").hexdigest()))
    assert await ended(start("upload-image", "vm", "--file", "disk")) == (
        0,
        "Uploading disk to image 'vm', hypervisor xen ...\n"
        "[OK]     disk uploaded to image 'vm', hypervisor xen\n",
        "Into the account of impeyr.\n",
    )


@pytest_twisted.ensureDeferred
async def test_other_bytes_in_the_store_are_8_and_not_ok(
    server: ScriptedServer, start: Start, disk: Path
) -> None:
    scripted_upload(server, image(), with_file(OTHER))
    code, out, err = await ended(start("upload-image", "vm", "--file", "disk"))
    assert code == 8
    assert "[OK]" not in out
    assert OTHER in err


@pytest_twisted.ensureDeferred
async def test_put_image_leaves_a_file_alone_unless_forced(
    server: ScriptedServer, start: Start, disk: Path
) -> None:
    scripted_upload(server, with_file(OTHER), with_file(OTHER))
    code, out, err = await ended(start("put-image", "disk", "vm"))
    assert (code, out) == (6, "")
    assert "--force" in err
    assert not any(path.startswith("PUT") for path in server.paths())


@pytest_twisted.ensureDeferred
async def test_a_deletion_is_never_asked_for_off_a_terminal(
    server: ScriptedServer, start: Start
) -> None:
    code, out, err = await ended(start("delete", "vm"))
    assert (code, out, server.asked) == (2, "", [])
    assert "--force" in err


@pytest.mark.parametrize(
    ("answer", "code", "deleted"), [("yes", 0, True), ("y", 2, False), ("", 2, False)]
)
@pytest_twisted.ensureDeferred
async def test_a_deletion_takes_the_whole_word(
    server: ScriptedServer, start: Start, answer: str, code: int, deleted: bool
) -> None:
    server.scripts["DELETE /api/images/vm"] = lambda _: json_reply({})
    program = start("delete", "vm", pty=True)
    await program.sees("Confirm deletion [yes]/[n]o: ")
    program.transport.write(f"{answer}\n".encode())
    assert (await ended(program))[0] == code
    assert bool(server.asked) == deleted
    assert ("[OK]     Removed image vm." in program.out) == deleted


@pytest_twisted.ensureDeferred
async def test_a_question_can_be_interrupted(server: ScriptedServer, start: Start) -> None:
    program = start("delete", "vm", pty=True)
    await program.sees("Confirm deletion")
    program.transport.write(b"\x03")
    assert (await ended(program))[0] == 130
    assert "Traceback" not in program.out


@pytest.mark.parametrize("width", [0, 80])
@pytest_twisted.ensureDeferred
async def test_a_bar_is_shown_on_a_terminal(
    server: ScriptedServer, start: Start, tmp_path: Path, width: int
) -> None:
    server.scripts[f"GET {RAW}"] = serve_file(CONTENT)
    program = start("get", "vm", pty=True)
    if width:
        size = struct.pack("4H", 24, width, 0, 0)
        fcntl.ioctl(program.transport.fileno(), termios.TIOCSWINSZ, size)
    assert (await ended(program))[0] == 0
    assert re.search(r"vm: +100%.*1\.91M/1\.91M", program.out)


@pytest_twisted.ensureDeferred
async def test_a_reader_that_leaves_early_is_no_trouble(
    server: ScriptedServer, start: Start
) -> None:
    server.scripts["GET /api/whoami"] = lambda _: json_reply(USER)
    program = start("whoami")
    program.transport.closeStdout()
    code, _, err = await ended(program)
    assert (code, err) == (1, "")


@pytest_twisted.ensureDeferred
async def test_a_directory_that_is_not_there_becomes_no_file(start: Start, tmp_path: Path) -> None:
    code, _, err = await ended(start("get", "vm", "-d", "nowhere/"))
    assert (code, "nowhere: No such file or directory" in err) == (1, True)
    assert not (tmp_path / "nowhere").exists()


@pytest_twisted.ensureDeferred
async def test_make_config_keeps_what_was_there(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "home" / ".repoman" / "repoman.conf"
    words = ("-H", "vmrepo.example.org", "-p", "443", "make-config")
    assert await ended(start(*words)) == (
        0, f"New repoman configuration file written to {path}\n", "",
    )  # fmt: skip
    first = path.read_text()
    assert "repository: vmrepo.example.org\nport: 443\n" in first
    assert (await ended(start("-H", "other", "make-config")))[0] == 0
    assert path.with_name("repoman.conf.bak").read_text() == first
    assert "repository: other\nport: 443\n" in path.read_text()


@pytest.mark.parametrize("suffix", [".new", ".part", ".tmp", ".bak", ".bak.1", "~"])
@pytest_twisted.ensureDeferred
async def test_make_config_destroys_no_file_of_the_user(
    start: Start, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / "home" / ".repoman" / "repoman.conf"
    path.parent.mkdir()
    path.write_text("[Repository]\nrepository: by-hand\n")
    path.with_name(path.name + suffix).write_text("of the user")
    for host in ("one", "two"):
        assert (await ended(start("-H", host, "make-config")))[0] == 0
    texts = [one.read_text() for one in path.parent.iterdir()]
    assert "of the user" in texts
    assert "[Repository]\nrepository: by-hand\n" in texts
    assert "repository: one\n" in path.with_name("repoman.conf.bak").read_text()
    assert "repository: two\n" in path.read_text()


@pytest_twisted.ensureDeferred
async def test_make_config_many_times_at_once_loses_nothing(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "home" / ".repoman" / "repoman.conf"
    path.parent.mkdir()
    path.write_text("[Repository]\nrepository: by-hand\n")
    running = [start("-H", f"host{n}", "make-config") for n in range(6)]
    assert {(await ended(one))[0] for one in running} == {0}
    texts = [one.read_text() for one in path.parent.iterdir()]
    found = [re.findall(r"^repository: (.*)$", text, re.MULTILINE) for text in texts]
    assert sorted(found) == [["by-hand"], *([f"host{n}"] for n in range(6))]
    assert all("@" not in name for name in os.listdir(path.parent))


def test_make_config_leaves_what_was_there_when_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "repoman.conf"
    path.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            local._write(path, "new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == ["repoman.conf"]
    assert path.read_text() == "old"


@pytest_twisted.ensureDeferred
async def test_make_config_writes_what_the_command_line_means(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "home" / ".repoman" / "repoman.conf"
    assert (await ended(start("-H", "https://h:444/", "--proxy", "p", "make-config")))[0] == 0
    assert "repository: h\nport: 444\n" in path.read_text()
    assert f"proxy_cert: {tmp_path}/p\n" in path.read_text()
    assert (await ended(start("-H", "h:444", "-P", "445", "make-config")))[0] == 0
    assert "repository: h\nport: 445\n" in path.read_text()
    for words, said in ((("-p", "99999"), "--port: a port is"), (("-H", "no host"), "no server")):
        code, out, err = await ended(start(*words, "make-config", "--stdout"))
        assert (code, out) == (2, "")
        assert said in err
        assert "Traceback" not in err


@pytest_twisted.ensureDeferred
async def test_help_is_there_whatever_the_configuration_says(start: Start, tmp_path: Path) -> None:
    (tmp_path / "conf").write_text("nonsense")
    for words, code in (("help", 0), ("version", 0), ("completion bash", 0), ("about", 2)):
        program = start(*words.split(), REPOMAN_CLIENT_CONFIG=str(tmp_path / "conf"))
        assert (await ended(program))[0] == code


@pytest_twisted.ensureDeferred
async def test_about_has_eleven_aligned_lines(start: Start) -> None:
    code, out, _ = await ended(start("about"))
    assert code == 0
    names = [line.partition(":")[0] for line in out.splitlines()]
    assert names == [
        "client version", "config files in use", "repository_host", "repository_port",
        "user_proxy_cert", "snapshot", "mountpoint", "lockfile", "system_excludes",
        "user_excludes", "logging",
    ]  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_a_log_is_kept_if_it_is_configured(
    server: ScriptedServer, start: Start, tmp_path: Path
) -> None:
    conf = tmp_path / "repoman.conf"
    conf.write_text(f"[Logger]\nenabled: true\ndir: {tmp_path}/logs\n")
    code, _, _ = await ended(start("whoami", REPOMAN_CLIENT_CONFIG=str(conf)))
    assert code == 3
    log = (tmp_path / "logs" / "repoman.log").read_text()
    assert "whoami begins" in log
    assert "whoami ends: No GET /api/whoami." in log


@pytest_twisted.ensureDeferred
async def test_a_log_that_cannot_be_kept_is_no_obstacle(
    server: ScriptedServer, start: Start, tmp_path: Path
) -> None:
    server.scripts["GET /api/whoami"] = lambda _: json_reply(USER)
    conf = tmp_path / "repoman.conf"
    conf.write_text("[Logger]\nenabled: true\ndir: /proc/logs\n")
    code, out, err = await ended(start("whoami", REPOMAN_CLIENT_CONFIG=str(conf)))
    assert (code, out) == (0, "impeyr\n")
    assert err.startswith("No log is written to /proc/logs/repoman.log: ")


@pytest_twisted.ensureDeferred
async def test_progress_is_json_lines_for_a_program(
    server: ScriptedServer, start: Start, tmp_path: Path
) -> None:
    def trickle(asked: Asked) -> bytes:
        if asked.method == "HEAD":
            return serve_file(CONTENT)(asked)
        for step in range(1, 5):
            piece = CONTENT[step * 400_000 : step * 400_000 + 400_000]
            reactor.callLater(step * 0.4, server.send, piece)  # type: ignore[attr-defined]
        return serve_file(CONTENT)(asked)[: -len(CONTENT) + 400_000]

    server.scripts[f"GET {RAW}"] = trickle
    code, out, err = await ended(start("get", "vm", "--json"))
    assert (code, json.loads(out)["size"]) == (0, len(CONTENT))
    lines = [json.loads(line) for line in err.splitlines()]
    assert len(lines) == 1
    assert set(lines[0]) == {"file", "done", "total", "bytes_per_second", "seconds_left"}
    assert lines[0]["done"] >= 800_000


@pytest_twisted.ensureDeferred
async def test_a_put_is_interrupted_at_a_terminal(
    server: ScriptedServer, start: Start, tmp_path: Path
) -> None:
    with (tmp_path / "disk").open("wb") as file:
        file.truncate(2**34)
    server.scripts["GET /api/images/vm"] = lambda _: json_reply(image())
    server.scripts[f"PUT {RAW}"] = lambda _: b"HTTP/1.1 100 Continue\r\n\r\n"
    program = start("put", "disk", "vm", pty=True)
    await program.sees("disk:")
    program.transport.write(b"\x03")
    code, out, _ = await ended(program)
    assert code == 130
    assert "[OK]" not in out
    assert "Traceback" not in out
