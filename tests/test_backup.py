"""A backup of a running server is a server again, elsewhere; anything less is said."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from repoman.database.saving import SavedBlob
from repoman.errors import Conflict
from repoman.operator import manifest
from tests.postgres import on_server
from tests.server import Daemon
from tests.test_audit import rows
from tests.test_operator import operate

EARLIER = """
DELETE FROM schema_version WHERE number > 2; DROP TABLE audit_chain, audit;
DROP INDEX blob_scrubbed, image_public_by_name, image_public_by_owner;
DROP TRIGGER blob_gone ON blob; DROP FUNCTION note_gone;
ALTER TABLE blob DROP scrubbed, DROP stamp, DROP multipart, DROP gone_since,
                 DROP holder, DROP held_until, DROP wanted;
DROP TABLE chores, daemon, copied, offer, admin_line; ALTER TABLE repository DROP secret;
DROP TRIGGER image_hypervisor_gone ON image_hypervisor; DROP FUNCTION release_words;
DROP FUNCTION date_of, next_date, bind_file, leave_addresses, bind_image, bind_default, leave_name,
     summed, bind_sums, bind_like_sums CASCADE;
DROP VIEW file_date;
ALTER TABLE image_file DROP bound; ALTER TABLE image DROP bound;
ALTER TABLE account DROP freed, DROP bound;
ALTER TABLE repository DROP freed;
ALTER TABLE word DROP lasting; ALTER TABLE login DROP anchor; ALTER TABLE image DROP keeps_files;
ALTER TABLE account DROP own_email, ADD CONSTRAINT account_email_taken UNIQUE (email)
"""
CONTENT = {"one": os.urandom(300_000), "two": b"", "three": b"3" * 1000 + bytes(9_000_000)}
DATA = 301_000
"""How many bytes of it are no zeros."""


def fill(daemon: Daemon) -> None:
    for name, content in CONTENT.items():
        daemon.admin.ask("POST", "/api/images", form={"name": name})
        assert daemon.admin.ask("PUT", f"/api/images/raw/{name}", body=content).status == 200


def served(daemon: Daemon) -> dict[str, bytes]:
    names = [url.rpartition("/")[2] for url in daemon.admin.ask("GET", "/api/images").json]
    return {name: daemon.admin.ask("GET", f"/api/images/raw/{name}").body for name in names}


def elsewhere(daemon: Daemon, directory: Path) -> Daemon:
    """An empty host for the same people: other ports, other directories, the same CA."""
    directory.mkdir()
    other = Daemon(directory)
    shutil.rmtree(other.ca_directory)
    shutil.copytree(daemon.ca_directory, other.ca_directory)
    for name in ("hostcert.pem", "hostkey.pem", "admins"):
        shutil.copy2(daemon.directory / name, directory / name)
    other.admin.proxy, other.admin.dn = daemon.admin.proxy, daemon.admin.dn
    return other


@pytest.fixture
def source(tmp_path: Path) -> Daemon:
    (tmp_path / "source").mkdir()
    return Daemon(tmp_path / "source")


def blobs(daemon: Daemon) -> list[Path]:
    return sorted((daemon.directory / "state" / "blobs" / "data").glob("*/*"))


def test_a_running_server_is_saved_and_comes_back_on_an_empty_host(
    source: Daemon, tmp_path: Path
) -> None:
    with source.running():
        fill(source)
        saved = operate("backup", tmp_path / "saved", "-c", source.config)
        assert (saved.returncode, saved.stderr) == (0, ""), saved
        assert "3 files of 9301000 bytes, each as it was stored" in saved.stdout
        source.admin.ask("DELETE", "/api/images/one")
        assert source.admin.ask("PUT", "/api/images/raw/three", body=b"later").status == 200
        fetched = source.admin.ask("GET", "/api/images/raw/three").headers["Last-Modified"]
    other = elsewhere(source, tmp_path / "other")
    done = operate("restore", tmp_path / "saved", "-c", other.config)
    assert (done.returncode, done.stderr) == (0, ""), done
    with other.running():
        assert served(other) == CONTENT
        # Whoever has what was there after the backup is not told that it is still so.
        since = {"If-Modified-Since": fetched}
        assert other.admin.ask("GET", "/api/images/raw/three", headers=since).status == 200
        for files in (blobs(source), (tmp_path / "saved" / "blobs").glob("data/*/*"), blobs(other)):
            assert sum(file.stat().st_blocks for file in files) * 512 < DATA + 10_000
        assert "reading it again" not in other.log.read_text()
        assert rows(other, "action=repository.restore")[0]["user"] == "(operator)"
        assert operate("verify-audit", "-c", other.config).returncode == 0


def test_what_is_deleted_while_it_is_saved_is_saved(source: Daemon, tmp_path: Path) -> None:
    # The command is held between the dump and the files until the sweeper would have had them.
    pipe = tmp_path / "hold"
    os.mkfifo(pipe)
    with source.running():
        fill(source)
        found: list[object] = []
        slow = f"import os; open({str(pipe)!r}).read()"
        (tmp_path / "usercustomize").mkdir()
        (tmp_path / "usercustomize" / "sitecustomize.py").write_text(
            "import repoman.operator.saving as s\n"
            "listed = s.saved_blobs\n"
            "async def late(t):\n"
            f"    {slow}\n"
            "    return await listed(t)\n"
            "s.saved_blobs = late\n"
        )
        command = threading.Thread(
            target=lambda: found.append(
                operate("backup", tmp_path / "saved", "-c", source.config,
                        path=tmp_path / "usercustomize")
            )
        )  # fmt: skip
        command.start()
        with pipe.open("w"):  # opened as soon as the command reads it
            source.admin.ask("DELETE", "/api/images/one")
            time.sleep(2)
            assert len(blobs(source)) == 3, "the sweeper waits for the backup"
        command.join()
        assert found[0].returncode == 0, found  # type: ignore[attr-defined]
        source.admin.ask("DELETE", "/api/images/three")
        end = time.monotonic() + 20
        while len(blobs(source)) > 1:
            assert time.monotonic() < end
            time.sleep(0.1)
    other = elsewhere(source, tmp_path / "other")
    assert operate("restore", tmp_path / "saved", "-c", other.config).returncode == 0
    with other.running():
        assert served(other) == CONTENT


def test_later_backups_link_to_the_files_of_an_earlier_one(source: Daemon, tmp_path: Path) -> None:
    with source.running():
        fill(source)
        assert operate("backup", tmp_path / "monday", "-c", source.config).returncode == 0
        source.admin.ask("PUT", "/api/images/raw/three", body=b"new")
        options = ["--since", str(tmp_path / "monday"), "-c", str(source.config)]
        assert operate("backup", tmp_path / "tuesday", *options).returncode == 0
    links = [path.stat().st_nlink for path in (tmp_path / "tuesday" / "blobs").glob("data/*/*")]
    assert sorted(links)[:3] == [1, 2, 2]


def test_a_file_that_is_not_what_was_stored_is_not_saved_but_said(
    source: Daemon, tmp_path: Path
) -> None:
    with source.running():
        fill(source)
    [bad] = [path for path in blobs(source) if path.stat().st_size == len(CONTENT["one"])]
    bad.write_bytes(b"x" * 300_000)
    saved = operate("backup", tmp_path / "saved", "-c", source.config)
    assert saved.returncode == 1
    assert saved.stderr == f"{bad.name} is missing or not what was stored, and not saved.\n"
    other = elsewhere(source, tmp_path / "other")
    done = operate("restore", tmp_path / "saved", "-c", other.config)
    assert done.returncode == 1
    assert "1 files are not in the backup: they are marked damaged" in done.stderr
    with other.running():
        assert other.admin.ask("GET", "/api/images/raw/one").status == 500
        assert other.admin.ask("GET", "/api/images/raw/three").body == CONTENT["three"]


def test_files_newer_than_the_restored_database_are_put_away(
    source: Daemon, tmp_path: Path
) -> None:
    with source.running():
        fill(source)
        assert operate("backup", tmp_path / "saved", "-c", source.config).returncode == 0
        source.admin.ask("POST", "/api/images", form={"name": "late"})
        source.admin.ask("PUT", "/api/images/raw/late", body=b"newer than the backup")
    shutil.rmtree(source.directory / "state" / "database")
    done = operate("restore", tmp_path / "saved", "-c", source.config)
    assert (done.returncode, done.stderr) == (0, ""), done
    with source.running():
        assert served(source) == CONTENT
        quarantine = source.directory / "state" / "blobs" / "quarantine"
        end = time.monotonic() + 20
        while not list(quarantine.iterdir()):
            assert time.monotonic() < end
            time.sleep(0.1)
        [late] = quarantine.iterdir()
        assert late.read_bytes() == b"newer than the backup"


def test_nothing_is_restored_over_something_or_from_nothing(source: Daemon, tmp_path: Path) -> None:
    with source.running():
        fill(source)
        saved = tmp_path / "saved"
        assert operate("backup", saved, "-c", source.config).returncode == 0
        again = operate("backup", saved, "-c", source.config)
        assert again.stderr == f"{saved} is not empty: name a new directory\n"
        over = operate("restore", saved, "-c", source.config)
        assert over.returncode == 1
        assert "is not empty" in over.stderr
        assert served(source) == CONTENT
    other = elsewhere(source, tmp_path / "other")
    nothing = operate("restore", tmp_path / "other", "-c", other.config)
    assert "is no whole backup (no manifest.json)" in nothing.stderr
    with (saved / "database.dump").open("r+b") as file:
        file.seek(100)
        file.write(b"bent")
    bent = operate("restore", saved, "-c", other.config)
    assert "database.dump is not what was saved" in bent.stderr
    assert not (other.directory / "state").exists()


def test_tables_go_forwards_at_a_start_and_a_backup_of_a_newer_release_is_refused(
    source: Daemon, tmp_path: Path
) -> None:
    saved = tmp_path / "saved"
    with source.running():
        fill(source)
        # As an earlier release had it: without what the newest migrations have made.
        on_server(source.dsn, EARLIER)
        source.process.kill()  # type: ignore[union-attr]
        source.stop()
    with source.running():  # forwards, at the start
        assert served(source) == CONTENT
        assert operate("backup", saved, "-c", source.config).returncode == 0
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest["schema"] += 1
    (saved / "manifest.json").write_text(json.dumps(manifest))
    other = elsewhere(source, tmp_path / "other")
    done = operate("restore", saved, "-c", other.config)
    assert done.returncode == 1
    assert "knows versions up to" in done.stderr
    assert not (other.directory / "state").exists()


@frozen
class Saved:
    """A backup, and an empty host for it.

    :ivar source: what was saved.
    """

    directory: Path
    other: Daemon
    source: Daemon


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    place = tmp_path_factory.mktemp("saved")
    (place / "source").mkdir()
    source = Daemon(place / "source")
    with source.running():
        fill(source)
        # A directory that is there, and as open as directories are.
        (place / "backup").mkdir(mode=0o755)
        done = operate("backup", place / "backup", "-c", source.config)
        assert (done.returncode, done.stderr) == (0, ""), done
    return Saved(place / "backup", elsewhere(source, place / "other"), source)


def test_a_backup_is_for_its_owner_alone(saved: Saved) -> None:
    found = {p: p.stat().st_mode for p in (saved.directory, *saved.directory.rglob("*"))}
    assert len(found) > 8
    assert [p for p, mode in found.items() if mode & 0o077] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_backup_goes_into_nobody_elses_directory_and_changes_no_other(saved: Saved) -> None:
    theirs, full = saved.directory.parent / "theirs", saved.directory.parent / "full"
    for directory in (theirs, full):
        directory.mkdir(mode=0o755)
    os.chown(theirs, 12345, 12345)
    (full / "x").touch()
    for directory, words in ((theirs, "belongs to uid 12345"), (full, "is not empty")):
        done = operate("backup", directory, "-c", saved.source.config)
        assert (done.returncode, words in done.stderr) == (1, True), done
        assert stat.S_IMODE(directory.stat().st_mode) == 0o755


def first(manifest: Any) -> Any:
    return manifest["blobs"][0]


SAID: dict[str, Callable[[Any], object]] = {
    "up": lambda m: first(m).update(blob="../../../../../victim/x"),
    "absolute": lambda m: first(m).update(blob="/victim"),
    "inner": lambda m: first(m).update(blob="ab/../../victim" + "0" * 17),
    "nul": lambda m: first(m).update(blob=first(m)["blob"][:31] + "\0"),
    "newline": lambda m: first(m).update(blob=first(m)["blob"] + "\n"),
    "upper case": lambda m: first(m).update(blob="A" * 32),
    "other digits": lambda m: first(m).update(blob="\u0663" * 32),
    "short": lambda m: first(m).update(blob="ab"),
    "no text": lambda m: first(m).update(blob=7),
    "twice": lambda m: m["blobs"].append(first(m)),
    "no digest": lambda m: first(m).update(sha256=None),
    "negative": lambda m: first(m).update(size=-1),
    "fraction": lambda m: first(m).update(size=1.5),
    "huge": lambda m: first(m).update(size=2**63),
    "unsure": lambda m: first(m).update(needed="yes"),
    "more": lambda m: first(m).update({"\x1b[2J": 1}),
    "no list": lambda m: m.update(blobs={"a": 1}),
    "list of lists": lambda m: m.update(blobs=[[1]]),
    "missing": lambda m: m.update(missing=["../x"]),
    "repository": lambda m: m.update(repository_id="../x\x1b"),
    "tables": lambda m: m.update(schema="9"),
    "release": lambda m: m.update(repoman="\x1b[2J"),
    "format": lambda m: m.update(format="1"),
}
"""What a manifest may say, and no backup has written."""


def refused(saved: Saved, directory: Path) -> str:
    """What restore says, which has made nothing."""
    done = operate("restore", directory, "-c", saved.other.config)
    assert done.returncode == 1, done
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr[:-1].isprintable()
    assert not (saved.other.directory / "state").exists()
    assert not (directory.parent / "victim").exists()
    return done.stderr


@pytest.mark.parametrize("said", SAID)
def test_a_manifest_that_backup_has_not_written_is_refused(
    saved: Saved, tmp_path: Path, said: str
) -> None:
    directory = tmp_path / "backup"
    shutil.copytree(saved.directory, directory)
    told = json.loads((directory / "manifest.json").read_text())
    SAID[said](told)
    (directory / "manifest.json").write_text(json.dumps(told))
    assert "is no backup" in refused(saved, directory)


@pytest.mark.parametrize("text", ["", "[]", "7", "null", "[" * 100_000, '{"format": 1}', "\xff"])
def test_what_is_no_manifest_is_refused(saved: Saved, tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    assert "is no backup that this release reads" in refused(saved, tmp_path)


def test_a_manifest_of_any_length_is_not_read(saved: Saved, tmp_path: Path) -> None:
    with (tmp_path / "manifest.json").open("wb") as file:
        file.truncate(10 * 2**30)
    assert "is no backup" in refused(saved, tmp_path)


def behind_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def to_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


BENT: list[tuple[str, Callable[[Path], object], str]] = [
    ("blobs", behind_link, "Not a directory"),
    ("blobs/data", behind_link, "Not a directory"),
    ("blobs/data/*", behind_link, "Not a directory"),
    ("blobs/data/*/*", behind_link, "symbolic link"),
    ("manifest.json", behind_link, "symbolic link"),
    ("database.dump", behind_link, "symbolic link"),
    ("blobs/data/*/*", pipe, "not a regular file"),
    ("manifest.json", pipe, "not a regular file"),
    ("database.dump", pipe, "not a regular file"),
    ("blobs/data/*/*", to_directory, "not a regular file"),
    (".", lambda path: path.chmod(0o777), "chmod -R go-w"),
    ("manifest.json", lambda path: path.chmod(0o620), "chmod -R go-w"),
    ("database.dump", lambda path: path.chmod(0o602), "chmod -R go-w"),
    (".", lambda path: os.chown(path, 12345, 0), "belongs to uid 12345"),
    ("manifest.json", lambda path: os.chown(path, 12345, 0), "belongs to uid 12345"),
    ("database.dump", lambda path: os.chown(path, 12345, 0), "belongs to uid 12345"),
]
"""What a backup may be made of, and is refused for."""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize(("part", "bend", "words"), BENT)
def test_links_and_what_others_could_have_changed_are_not_restored(
    saved: Saved, tmp_path: Path, part: str, bend: Callable[[Path], object], words: str
) -> None:
    directory = tmp_path / "backup"
    shutil.copytree(saved.directory, directory)
    bend(min(directory.glob(part)) if part != "." else directory)
    assert words in refused(saved, directory)


def test_of_two_copies_to_one_place_each_names_its_own_bytes(tmp_path: Path) -> None:
    """As of two restores at once: the slower one is refused, and spoils nothing."""
    right = os.urandom(300_000)
    blob = SavedBlob("0" * 32, len(right), hashlib.sha256(right).hexdigest())
    target = manifest.place(tmp_path, blob.blob)

    class Coming(io.BytesIO):
        """Half way through its bytes, another copy to the same place begins."""

        def read(self, size: int | None = -1) -> bytes:
            if self.tell() == 0:
                with pytest.raises(Conflict, match="Another process writes"):
                    manifest.copy(io.BytesIO(b"others" * 1000), target, blob)
            return super().read(100_000)

    assert manifest.copy(Coming(right), target, blob)
    assert target.read_bytes() == right
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize("how", ["killed", "moved"])
def test_what_a_copy_left_is_written_anew(tmp_path: Path, how: str) -> None:
    right = os.urandom(1000)
    blob = SavedBlob("0" * 32, len(right), hashlib.sha256(right).hexdigest())
    target = manifest.place(tmp_path, blob.blob)
    left = target.with_name(target.name + "@new")

    class Coming(io.BytesIO):
        """Whose copy somebody replaces on the way."""

        def read(self, size: int | None = -1) -> bytes:
            if how == "moved":
                left.unlink()
                left.write_bytes(b"of somebody")
            return super().read(size)

    if how == "killed":
        target.parent.mkdir(parents=True)
        left.write_bytes(b"x" * 5000)
        assert manifest.copy(Coming(right), target, blob)
        assert (target.read_bytes(), os.listdir(target.parent)) == (right, [target.name])
    else:
        with pytest.raises(Conflict, match="replaced"):
            manifest.copy(Coming(right), target, blob)
        assert (left.read_bytes(), target.exists()) == (b"of somebody", False)
