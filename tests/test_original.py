"""What an original Repoman holds comes over; what two things claim, none gets, and it is said."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.postgres import on_server
from tests.server import Daemon
from tests.test_audit import rows
from tests.test_operator import operate

SCHEMA = """
CREATE TABLE "user" (id integer, user_name text, email text, full_name text, password text,
    created timestamp, expires timestamp, suspended boolean, deleted boolean,
    certificate_id integer, quota_id integer);
CREATE TABLE certificate (id integer, client_dn text, issuer_dn text);
CREATE TABLE quota (id integer, max_storage integer);
CREATE TABLE groups (id integer, created timestamp, protected boolean, name text);
CREATE TABLE permission (id integer, permission_name text);
CREATE TABLE image (id integer, uuid text, uploaded timestamp, modified timestamp,
    expires timestamp, version integer, size integer, name text, description text,
    os_variant text, os_type text, os_arch text, hypervisor text, path text, deleted boolean,
    read_only boolean, raw_uploaded boolean, unauthenticated_access boolean,
    parent_image_id integer, checksum_id integer, owner_id integer, shared_id integer);
CREATE TABLE checksum (id integer, ctype text, cvalue text);
CREATE TABLE image_share (id integer, enabled boolean);
CREATE TABLE user_group_association (user_id integer, group_id integer);
CREATE TABLE group_permission_association (group_id integer, permission_id integer);
CREATE TABLE imageshare_user_association (imageshare_id integer, user_id integer);
CREATE TABLE imageshare_group_association (imageshare_id integer, group_id integer);
INSERT INTO certificate VALUES (1, '/C=CA/O=Grid/CN=Ann', '/C=CA/O=Grid/CN=Test CA'),
    (2, '/C=CA/O=Grid/CN=Bob', '/C=CA/O=Grid/CN=Bob'), (3, '/C=CA/O=Grid/CN=Twin', NULL);
INSERT INTO quota VALUES (1, 500);
INSERT INTO permission VALUES (1, 'image_delete'), (2, 'fly');
INSERT INTO groups VALUES (1, NULL, true, 'users'), (2, NULL, false, 'babar'),
    (3, NULL, false, 'a b');
INSERT INTO user_group_association VALUES (1, 1), (1, 2), (2, 2);
INSERT INTO group_permission_association VALUES (2, 1), (2, 2);
INSERT INTO image_share VALUES (1, true), (2, false);
INSERT INTO imageshare_user_association VALUES (1, 2), (2, 2);
INSERT INTO imageshare_group_association VALUES (1, 2);
"""
GOOD = b"the image"
USERS = [
    # id name email full expires suspended deleted certificate quota
    (1, "ann", "ann@example.org", "Ann A", None, False, False, 1, 1),
    (2, "bob", None, None, "2012-01-01 00:00:00", False, False, 2, None),
    (3, "twin1", None, None, None, False, False, 3, None),
    (4, "twin2", None, None, None, False, False, 3, None),
    (5, "kvm", None, None, None, False, False, None, None),
    (6, "gone", None, None, None, False, True, None, None),
]
IMAGES = [
    # id name hypervisor size deleted read_only uploaded public checksum owner share
    (1, "sl6", None, len(GOOD), False, True, True, True, 1, 1, 1),
    (2, "two", "xen,kvm", None, False, False, True, False, None, 1, 2),
    (3, "bent", "xen", 4, False, False, True, False, 1, 1, None),
    (4, "short", "xen", 99, False, False, True, False, None, 1, None),
    (5, "lost", "xen", 9, False, False, True, False, None, 1, None),
    (6, "never", "xen", 0, False, False, False, False, None, 1, None),
    (7, "orphan", "xen", 0, False, False, True, False, None, 3, None),
    (8, "b_c", "xen", None, False, False, True, False, None, 1, None),
    (9, "c", "xen", None, False, False, True, False, None, 7, None),
    (10, "old", "xen", None, True, False, True, False, None, 1, None),
    (11, "late", "xen", None, False, False, True, False, None, 2, None),
    (12, "void", "xen", None, False, False, True, False, 2, 1, None),
]
FILES = {
    "ann_sl6_xen": GOOD, "ann_two_xen": b"for xen" + bytes(5_000_000), "ann_two_kvm": b"for kvm",
    "ann_bent_xen": b"bent", "ann_short_xen": b"short", "ann_b_c_xen": b"whose", "stray": b"?",
    "bob_late_xen": b"of a suspended user", "ann_void_xen": b"void",
}  # fmt: skip
FINDINGS = {
    "user gone: is deleted", "user ann: set the quota by hand: 500, of unknown unit",
    "user bob: has expired; is suspended here",
    "user twin1: several users have the DN /C=CA/O=Grid/CN=Twin",
    "user twin2: several users have the DN /C=CA/O=Grid/CN=Twin",
    "user kvm: this is the name of a hypervisor; has no DN, so nobody could log in",
    "group babar: there is no permission fly",
    "image ann/old: is deleted", "image twin1/orphan: its owner is not taken over",
    "image ann/short: its file ann_short_xen has 5 bytes instead of 99",
    "image ann/lost: its file ann_lost_xen is missing",
    "image ann/b_c: its file ann_b_c_xen is also that of ann_b/c",
    "image ann_b/c: its file ann_b_c_xen is also that of ann/b_c", "file stray: no image claims it",
}  # fmt: skip


def tables(connection: Any, mark: str) -> None:
    """Fill a database as the original had it."""
    with closing(connection.cursor()) as cursor:
        for statement in filter(str.strip, SCHEMA.split(";")):
            cursor.execute(statement)
        insert = "INSERT INTO certificate VALUES (4, '/C=CA/O=Grid/CN=Under', NULL)"
        cursor.execute(insert)
        md5 = hashlib.md5(GOOD, usedforsecurity=False).hexdigest()
        cursor.execute(f"INSERT INTO checksum VALUES (1, 'md5', '{md5}'), (2, 'md5', 'voided')")
        for row in [*USERS, (7, "ann_b", None, None, None, False, False, 4, None)]:
            id_, name, email, full, expires, suspended, deleted, certificate, quota = row
            values = (id_, name, email, full, expires, suspended, deleted, certificate, quota)
            cursor.execute(
                'INSERT INTO "user" (id, user_name, email, full_name, expires, suspended, deleted,'
                f" certificate_id, quota_id) VALUES ({', '.join([mark] * 9)})",
                values,
            )
        for image in IMAGES:
            cursor.execute(
                "INSERT INTO image (id, name, hypervisor, size, deleted, read_only, raw_uploaded,"
                " unauthenticated_access, checksum_id, owner_id, shared_id)"
                f" VALUES ({', '.join([mark] * 11)})",
                image,
            )
    connection.commit()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    place = tmp_path / "image_storage"
    place.mkdir()
    for name, content in FILES.items():
        (place / name).write_bytes(content)
    (place / "lost+found").mkdir()
    (place / "ann_lost_xen").symlink_to("gone")
    return place


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = tmp_path / "original.db"
    with closing(sqlite3.connect(path)) as connection:
        tables(connection, "?")
    return str(path)


def run(daemon: Daemon, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return operate("import-original", *words, "-c", daemon.config)


def test_everything_without_a_collision_comes_over_and_the_rest_is_said(
    database: str, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    with Daemon(tmp_path / "site").running() as daemon:
        dry = run(daemon, "--dry-run", database, images)
        assert dry.returncode == 1
        said = set(dry.stderr.splitlines())
        assert {
            line for line in said if not line.startswith("group a b: Bad group name")
        } == FINDINGS
        assert daemon.admin.ask("GET", "/api/users/ann").status == 404
        done = run(daemon, database, images)
        assert done.returncode == 1
        [bent] = set(done.stderr.splitlines()) - said
        assert bent.startswith(
            "image ann/bent, file ann_bent_xen: The bytes that came have the md5"
        )
        check(daemon)
        before = rows(daemon, "limit=1")[0]["number"]
        again = run(daemon, database, images)
        assert set(again.stderr.splitlines()) == set(done.stderr.splitlines())
        changed = rows(daemon, "limit=100&outcome=done")
        changed = [row for row in changed if row["number"] > before]
        assert {row["action"] for row in changed} <= {"user.bind"}, "it changes nothing twice"
        assert rows(daemon, "subject=ann/sl6&action=image.store")[0]["user"] == "(operator)"


def check(daemon: Daemon) -> None:
    """Look at what has come over."""
    admin = daemon.admin
    ann = daemon.person("Ann", "ann")
    assert ann.ask("GET", "/api/whoami").json["full_name"] == "Ann A"
    assert daemon.person("Bob").ask("GET", "/api/whoami").status == 403  # has expired
    assert admin.ask("GET", "/api/users/bob").json["suspended"] is True
    babar = admin.ask("GET", "/api/groups/babar").json
    assert babar["permissions"] == ["image_delete"]
    assert [url.rpartition("/")[2] for url in babar["users"]] == ["ann", "bob"]
    sl6 = ann.ask("GET", "/api/images/sl6").json
    assert (sl6["hypervisor"], sl6["read_only"], sl6["size"]) == ("xen", True, len(GOOD))
    assert [url.rpartition("/")[2] for url in sl6["shared_with"]["users"]] == ["bob"]
    assert daemon.nobody.ask("GET", "/api/images/raw/ann/sl6").body == GOOD
    two = ann.ask("GET", "/api/images/two").json
    assert two["shared_with"] == {"groups": [], "users": []}
    assert ann.ask("GET", "/api/images/raw/kvm/two").body == b"for kvm"
    assert ann.ask("GET", "/api/images/raw/xen/two").body == FILES["ann_two_xen"]
    stored = (daemon.directory / "state" / "blobs").rglob("?" * 32)
    assert sum(path.stat().st_blocks for path in stored) * 512 < 100_000, "zeros take room"
    assert ann.ask("GET", "/api/images/raw/void").body == b"void"
    for name in ("bent", "short", "lost", "never", "b_c"):
        assert ann.ask("GET", f"/api/images/raw/{name}").status == 404
    assert admin.ask("GET", "/api/images/bob/late").json["size"] == len(FILES["bob_late_xen"])
    for name in ("twin1", "twin2", "kvm", "gone"):
        assert admin.ask("GET", f"/api/users/{name}").status == 404


def test_postgresql_says_the_same_as_sqlite(database: str, images: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    with Daemon(tmp_path / "site").running() as daemon:
        on_server(daemon.dsn, "CREATE DATABASE original")
        dsn = daemon.dsn.replace("dbname=repoman", "dbname=original")
        with closing(psycopg2.connect(dsn)) as connection:
            tables(connection, "%s")
        one, other = (run(daemon, "--dry-run", source, images) for source in (database, dsn))
        assert (one.stdout, one.stderr) == (other.stdout, other.stderr)


def test_another_database_is_refused_in_a_line(images: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE x (y)")
    (tmp_path / "site").mkdir()
    daemon = Daemon(tmp_path / "site")
    done = run(daemon, tmp_path / "other.db", images)
    assert done.returncode == 1
    assert done.stderr == (
        "The original's database cannot be read: no such table: user: name its file or its DSN\n"
    )
    shutil.rmtree(images)
    assert "cannot be read" in run(daemon, tmp_path / "other.db", images).stderr
    assert not (tmp_path / "site" / "state").exists()
