"""The configuration files of both generations, merged."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from repoman.cli.snapshot.plan import make_plan
from repoman.client.settings import Settings, file_text, read_settings, state_directory, user_file
from repoman.errors import Misconfigured

NOWHERE = Path("/nowhere/repoman.conf")


def write_user_file(home: Path, text: str) -> dict[str, str]:
    path = home / ".repoman" / "repoman.conf"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return {"HOME": str(home)}


def test_no_file_is_no_trouble(tmp_path: Path) -> None:
    assert read_settings({"HOME": str(tmp_path)}, NOWHERE) == Settings()


def test_the_keys_of_2012(tmp_path: Path) -> None:
    environ = write_user_file(
        tmp_path,
        "[Repository]\nrepository: vmrepo.example.org\nport: 443\n[User]\nproxy_cert: /p%x\n"
        "[Logger]\nenabled: true\ndir: /logs\nlevel: DEBUG\n"
        "[ThisImage]\nlockfile: /l\nsnapshot: /s\nmountpoint: /m\nsystem_excludes: /a /b\n"
        "user_excludes: /c\n",
    )
    settings = read_settings(environ, NOWHERE)
    assert (settings.repository, settings.port, settings.proxy_cert) == (
        "vmrepo.example.org", 443, "/p%x",
    )  # fmt: skip
    assert (settings.logging, settings.log_directory, settings.log_level) == (
        True, "/logs", "DEBUG",
    )  # fmt: skip
    assert (settings.lockfile, settings.snapshot, settings.mountpoint) == ("/l", "/s", "/m")
    assert (settings.system_excludes, settings.user_excludes) == ("/a /b", "/c")


@pytest.mark.parametrize("section", ["Repository", "repoman", "DEFAULT"])
def test_the_keys_of_2011_in_any_section(tmp_path: Path, section: str) -> None:
    environ = write_user_file(
        tmp_path,
        f"[{section}]\nrepository_host = old.example.org\nrepository_port = 8444\n"
        "user_proxy_cert = /p\nexclude_dirs = /x\nlogging_enabled = yes\nlogging_dir = /l\n",
    )
    settings = read_settings(environ, NOWHERE)
    assert (settings.repository, settings.port, settings.proxy_cert) == (
        "old.example.org", 8444, "/p",
    )  # fmt: skip
    assert (settings.user_excludes, settings.logging, settings.log_directory) == ("/x", True, "/l")


def test_later_files_win_key_by_key(tmp_path: Path) -> None:
    system, named = tmp_path / "system.conf", tmp_path / "named.conf"
    system.write_text("[Repository]\nrepository: a\nport: 1\n[User]\nproxy_cert: /a\n")
    named.write_text("[Repository]\nrepository: b\nport: 2\n")
    environ = write_user_file(tmp_path, "[Repository]\nrepository: c\nport:\n")
    settings = read_settings({**environ, "REPOMAN_CLIENT_CONFIG": str(named)}, system)
    assert (settings.repository, settings.port, settings.proxy_cert) == ("c", 2, "/a")
    assert settings.sources == (system, named, tmp_path / ".repoman" / "repoman.conf")


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "REPOMAN_CLIENT_CONFIG": "/gone.conf"}
    with pytest.raises(Misconfigured, match=r"/gone\.conf: cannot be read"):
        read_settings(environ, NOWHERE)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    broken = tmp_path / "broken.conf"
    broken.write_text("no section\n")
    environ = write_user_file(tmp_path, "[Repository]\nport: many\n[Logger]\nenabled: perhaps\n")
    with pytest.raises(Misconfigured) as raised:
        read_settings({**environ, "REPOMAN_CLIENT_CONFIG": str(broken)}, NOWHERE)
    mistakes = "\n".join(raised.value.mistakes)
    assert len(raised.value.mistakes) == 3
    for words in ("broken.conf", "port: a port is a number", "'perhaps'"):
        assert words in mistakes


BROKEN = {
    "no section": (b"port: 1\n", "line 1: a section, such as [Repository], must stand above it"),
    "no key": (b"[User]\n\nnonsense\n", "line 3: it is neither a [section] nor a key"),
    "a key twice": (b"[User]\na: 1\na: 2\n", "line 3: a stands twice in section [User]"),
    "a section twice": (b"[User]\n[User]\n", "line 2: the section [User] stands twice"),
    "no text": (b"\xff\xfe\x00", "it is no text in UTF-8"),
}


@pytest.mark.parametrize("which", BROKEN)
def test_a_broken_file_is_told_in_our_words(tmp_path: Path, which: str) -> None:
    content, words = BROKEN[which]
    path = tmp_path / "broken.conf"
    path.write_bytes(content)
    with pytest.raises(Misconfigured) as raised:
        read_settings({"HOME": "/gone", "REPOMAN_CLIENT_CONFIG": str(path)}, NOWHERE)
    (mistake,) = raised.value.mistakes
    assert mistake.startswith(f"{path}: {words}")
    for odd in ("<???>", "codec", "\\n", "'"):
        assert odd not in mistake


def test_under_sudo_the_callers_file_counts() -> None:
    assert user_file({"SUDO_USER": "root", "HOME": "/h"}) == Path("/h/.repoman/repoman.conf")
    assert user_file({"SUDO_USER": "daemon", "HOME": "/h"}) == Path(
        "/usr/sbin/.repoman/repoman.conf"
    )


def test_the_snapshot_and_what_goes_with_it_lie_in_snapshot_dir(tmp_path: Path) -> None:
    environ = write_user_file(tmp_path, "[ThisImage]\nsnapshot_dir: /large\nlockfile: /run/l\n")
    settings = read_settings(environ, NOWHERE)
    plan = make_plan(tmp_path, settings, [], None)
    assert (plan.image, plan.mountpoint) == (Path("/large/snapshot.img"), Path("/large/mnt"))
    assert (plan.directory, plan.lockfile) == (Path("/large"), Path("/run/l"))
    write_user_file(tmp_path, file_text(settings).replace("/large", "/larger"))
    plan = make_plan(tmp_path, read_settings(environ, NOWHERE), [], None)
    assert plan.image == Path("/larger/snapshot.img")


def test_excludes_may_stand_on_several_lines(tmp_path: Path) -> None:
    environ = write_user_file(tmp_path, "[ThisImage]\nsystem_excludes: /a /b\n   /c\n  /d,/e\n")
    settings = read_settings(environ, NOWHERE)
    assert settings.system_excludes == "/a /b /c /d,/e"
    write_user_file(tmp_path, file_text(settings))
    assert read_settings(environ, NOWHERE) == settings


def test_without_a_home_in_the_environment_the_accounts_counts() -> None:
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    assert user_file({}) == home / ".repoman" / "repoman.conf"
    assert state_directory({}) == home / ".local" / "state" / "repoman"


def test_a_written_file_reads_back(tmp_path: Path) -> None:
    settings = Settings(
        repository="vmrepo.example.org", port=443, proxy_cert="/p", logging=True, log_level="DEBUG"
    )
    environ = write_user_file(tmp_path, file_text(settings))
    read = read_settings(environ, NOWHERE)
    assert file_text(read) == file_text(settings)
    assert (read.repository, read.port, read.logging) == ("vmrepo.example.org", 443, True)
