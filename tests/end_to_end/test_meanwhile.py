"""What becomes of an upload when the world changes under it."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psycopg2
import pytest
from attrs import evolve

from tests.credentials import now, p256_key
from tests.end_to_end.conftest import MIB
from tests.end_to_end.test_attacks import owed
from tests.end_to_end.test_resumable_uploads import begin, begin_part, offset_of, send
from tests.ledger import LateDaemon, Ledger, wait_for
from tests.server import Answer, Daemon, Person, free_ports


@pytest.fixture
def alice(daemon: Daemon) -> Person:
    return daemon.newcomer()


def set_quota(daemon: Daemon, person: Person, quota: int) -> None:
    daemon.admin.ask("POST", f"/api/users/{person.name}", form={"quota": str(quota)})


def test_a_promised_upload_is_taken_although_the_quota_shrank(
    daemon: Daemon, alice: Person
) -> None:
    set_quota(daemon, alice, 1000)
    place = begin(alice, "one", 900)
    assert send(alice, place, 0, b"x" * 100).status == 204
    set_quota(daemon, alice, 10)
    refused = alice.ask("POST", "/api/images/raw/one", headers={"Upload-Complete": "?0"})
    assert refused.status == 413
    assert "room for 0 more bytes; delete" in refused.text
    assert send(alice, place, 100, b"x" * 800, last=True).status == 200
    assert owed(daemon, alice.name) == (900, 0)


def test_an_unpromised_one_is_refused_before_its_bytes_and_goes_on_later(
    daemon: Daemon, alice: Person
) -> None:
    set_quota(daemon, alice, 2000)
    place = begin(alice, "one", None)
    assert send(alice, place, 0, b"x" * 1000).status == 204
    set_quota(daemon, alice, 1100)
    refused = send(alice, place, 1000, b"x" * 200, last=True)
    assert refused.status == 413
    assert "room for 100 more bytes" in refused.text
    assert offset_of(alice, place) == 1000
    set_quota(daemon, alice, 1200)
    assert send(alice, place, 1000, b"x" * 200, last=True).status == 200
    assert owed(daemon, alice.name) == (1200, 0)


def test_over_the_quota_an_empty_file_is_still_no_byte_more(daemon: Daemon, alice: Person) -> None:
    alice.ask("POST", "/api/images", form={"name": "one"})
    alice.ask("PUT", "/api/images/raw/one", body=b"x" * 100)
    set_quota(daemon, alice, 10)
    assert alice.ask("PUT", "/api/images/raw/one", body=b"x").status == 413
    assert alice.ask("PUT", "/api/images/raw/one", body=b"").status == 200
    assert owed(daemon, alice.name) == (0, 0)


def test_of_parts_sent_at_once_no_mixture_is_made(daemon: Daemon, alice: Person) -> None:
    place = begin(alice, "one", 4 * MIB)

    def part(letter: bytes) -> Answer | None:
        rival = Person(daemon, alice.name, alice.dn, alice.proxy)
        with suppress(OSError):  # interrupted: another came with the same upload
            return send(rival, place, 0, letter * (4 * MIB), last=True)
        return None

    with ThreadPoolExecutor(6) as pool:
        answers = [
            answer for answer in pool.map(part, [b"a", b"b", b"c", b"d", b"e", b"f"]) if answer
        ]
    assert [answer.status for answer in answers].count(200) <= 1
    assert {answer.status for answer in answers} <= {200, 404, 409}
    if 200 not in {answer.status for answer in answers}:  # each was interrupted by the next
        done = send(
            alice, place, offset := offset_of(alice, place), b"z" * (4 * MIB - offset), True
        )
        assert done.status == 200
    content = alice.ask("GET", "/api/images/raw/one").body
    assert len(content) == 4 * MIB
    assert len(set(content.rstrip(b"z"))) <= 1
    assert alice.ask("GET", "/api/uploads").json == []
    assert owed(daemon, alice.name) == (4 * MIB, 0)


def test_an_upload_deleted_in_mid_flight_is_gone_with_its_bytes_and_its_room(
    daemon: Daemon, alice: Person
) -> None:
    place = begin(alice, "one", 4 * MIB)
    connection = begin_part(alice, place, 0, 4 * MIB)
    connection.send(bytes(2 * MIB))
    wait_for(lambda: Ledger(daemon).query("SELECT 1 FROM blob WHERE lease > now()"), 5)
    assert alice.ask("DELETE", place).status == 204
    with suppress(OSError):
        connection.send(bytes(2 * MIB))
        assert connection.getresponse().status != 200
    connection.close()
    assert alice.ask("HEAD", place).status == 404
    assert owed(daemon, alice.name) == (0, 0)
    assert alice.ask("GET", "/api/images/raw/one").status == 404


def test_it_follows_an_image_that_is_renamed(alice: Person) -> None:
    place = begin(alice, "one", 6)
    send(alice, place, 0, b"abc")
    alice.ask("POST", "/api/images/one", form={"name": "two"})
    assert send(alice, place, 3, b"def", last=True).status == 200
    assert alice.ask("GET", "/api/images/raw/two").body == b"abcdef"


def test_it_ends_with_the_hypervisor_that_it_is_for(daemon: Daemon, alice: Person) -> None:
    alice.ask("POST", "/api/images", form={"name": "one", "hypervisor": "xen,kvm"})
    headers = {"Upload-Complete": "?0", "Upload-Length": "6"}
    place = alice.ask("POST", "/api/images/raw/kvm/one", headers=headers).headers["Location"]
    send(alice, place, 0, b"abc")
    alice.ask("POST", "/api/images/one", form={"hypervisor": "xen"})
    assert send(alice, place, 3, b"def", last=True).status == 404
    assert owed(daemon, alice.name) == (0, 0)


def test_it_waits_for_a_user_who_is_suspended(daemon: Daemon, alice: Person) -> None:
    place = begin(alice, "one", 6)
    send(alice, place, 0, b"abc")
    daemon.admin.ask("POST", f"/api/users/{alice.name}", form={"suspended": "true"})
    assert send(alice, place, 3, b"def", last=True).status == 403
    daemon.admin.ask("POST", f"/api/users/{alice.name}", form={"suspended": "false"})
    assert send(alice, place, 3, b"def", last=True).status == 200


def test_of_a_user_suspended_in_mid_upload_nothing_is_stored(daemon: Daemon, alice: Person) -> None:
    alice.ask("POST", "/api/images", form={"name": "one"})
    assert alice.ask("PUT", "/api/images/raw/one", body=b"old").status == 200
    place = begin(alice, "one", 6)
    whole, part = alice.connection(), begin_part(alice, place, 0, 6)
    whole.putrequest("PUT", "/api/images/raw/one")
    whole.putheader("Content-Length", "6")
    whole.endheaders(b"who")
    part.send(b"par")
    running = "SELECT 1 FROM blob JOIN account ON account_id = uploader_id WHERE lease > now()"
    wait_for(lambda: len(Ledger(daemon).query(f"{running} AND user_name = '{alice.name}'")) == 2, 5)
    daemon.admin.ask("POST", f"/api/users/{alice.name}", form={"suspended": "true"})
    for connection in (whole, part):
        connection.send(b"le!")
        refused = connection.getresponse()
        assert refused.status == 403
        assert b"was suspended or deleted meanwhile" in refused.read()
        connection.close()
    daemon.admin.ask("POST", f"/api/users/{alice.name}", form={"suspended": "false"})
    assert alice.ask("GET", "/api/images/raw/one").body == b"old"
    assert owed(daemon, alice.name) == (3, 6)
    assert send(alice, place, offset_of(alice, place), b"", last=True).status == 200
    assert alice.ask("GET", "/api/images/raw/one").body == b"parle!"
    assert owed(daemon, alice.name) == (6, 0)


def test_a_proxy_counts_at_the_start_of_a_part_and_need_not_last_to_its_end(
    daemon: Daemon, alice: Person
) -> None:
    place = begin(alice, "one", 9)
    assert alice.credential is not None
    ends = now() + timedelta(seconds=3)
    proxy = alice.credential.proxy(key=p256_key("short"), ends=ends)
    path = proxy.write(daemon.directory / f"short-{alice.name}")
    short = Person(daemon, alice.name, alice.dn, path, alice.credential)
    assert send(short, place, 0, b"abc").status == 204
    whole, part = short.connection(), begin_part(short, place, 3, 6)
    whole.putrequest("PUT", "/api/images/raw/one")
    whole.putheader("Content-Length", "6")
    whole.endheaders(b"who")
    part.send(b"def")
    wait_for(lambda: now() > ends, 10)
    whole.send(b"le!")
    assert whole.getresponse().status == 200
    part.close()  # and is cut, at the worst time
    assert send(short, place, 6, b"ghi", last=True).status == 403, "a new part is a new question"
    offset = offset_of(alice, place)
    assert send(alice, place, offset, b"abcdefghi"[offset:], last=True).status == 200
    assert alice.ask("GET", "/api/images/raw/one").body == b"abcdefghi"
    whole.close()
    short.hang_up()


@pytest.mark.directory_store
def test_one_whose_time_is_over_is_swept_with_its_bytes_and_its_room(
    daemon: Daemon, alice: Person
) -> None:
    place = begin(alice, "one", 6)
    send(alice, place, 0, b"abc")
    key = place.rpartition("/")[2]
    with psycopg2.connect(daemon.dsn) as database, database.cursor() as cursor:
        cursor.execute(
            "UPDATE blob SET keep_until = now() - interval '1 s' WHERE blob = %s", (key,)
        )
    database.close()
    begin(alice, "two", 1)  # whatever is discarded wakes the sweeper
    alice.ask("DELETE", alice.ask("GET", "/api/uploads").json[-1]["url"])
    wait_for(lambda: alice.ask("HEAD", place).status == 404, 10)
    assert send(alice, place, 3, b"def", last=True).status == 404
    assert owed(daemon, alice.name) == (0, 0)
    files = daemon.directory / "state/blobs"
    wait_for(lambda: not list(files.rglob(key)), 10)
    assert not list(files.rglob(key))


@pytest.mark.directory_store
@pytest.mark.parametrize("harm", [Path.unlink, lambda path: os.truncate(path, 1)])
def test_an_upload_whose_bytes_were_lost_is_given_up_and_says_so(
    daemon: Daemon, alice: Person, harm: Callable[[Path], None]
) -> None:
    """As after a restored backup that left unfinished uploads out."""
    place = begin(alice, "one", None)
    assert send(alice, place, 0, b"abc").status == 204
    harm(daemon.directory / "state/blobs/incoming" / place.rpartition("/")[2])
    answer = send(alice, place, 3, b"def", last=True)
    assert (answer.status, "begin it anew" in answer.text) == (404, True)
    assert alice.ask("GET", "/api/uploads").json == []
    assert owed(daemon, alice.name) == (0, 0)
    place = begin(alice, "one", 6)
    assert send(alice, place, 0, b"abcdef", last=True).status == 200


@pytest.mark.directory_store
def test_a_damaged_file_is_told_before_its_length_too(daemon: Daemon, alice: Person) -> None:
    content = os.urandom(5000)
    alice.ask("POST", "/api/images", form={"name": "one"})
    alice.ask("PUT", "/api/images/raw/one", body=content)
    [[key]] = Ledger(daemon).query(
        "SELECT blob FROM account JOIN blob ON payer_id = account_id"
        f" WHERE user_name = '{alice.name}'"
    )
    os.truncate(daemon.directory / "state/blobs/data" / key[:2] / key, 100)
    answer = alice.ask("GET", "/api/images/raw/one", headers={"Range": "bytes=0-9"})
    assert answer.status == 500
    about_bytes = {"Etag", "Last-Modified", "Repr-Digest", "Content-Range", "Content-Disposition"}
    assert not about_bytes & {*answer.headers}, "none of it is what was sent"
    assert alice.ask("HEAD", "/api/images/raw/one").status == 500, "noted, not only noticed"
    assert alice.ask("PUT", "/api/images/raw/one", body=content).status == 200
    assert alice.ask("GET", "/api/images/raw/one").body == content


def test_a_download_meets_either_file_whole_when_the_image_is_replaced(
    daemon: Daemon, alice: Person
) -> None:
    alice.ask("POST", "/api/images", form={"name": "one"})
    contents = [os.urandom(1000) for _ in range(2)]
    alice.ask("PUT", "/api/images/raw/one", body=contents[0])
    reader, end = evolve(alice, connection=None), time.monotonic() + 4
    got: list[Answer] = []

    def read() -> None:
        while time.monotonic() < end:
            got.append(reader.ask("GET", "/api/images/raw/one"))

    reading = threading.Thread(target=read)
    reading.start()
    number = 0
    while time.monotonic() < end:
        number += 1
        assert alice.ask("PUT", "/api/images/raw/one", body=contents[number % 2]).status == 200
    reading.join()
    reader.hang_up()
    assert {answer.status for answer in got} == {200}
    tags = {hashlib.sha256(content).hexdigest(): content for content in contents}
    assert all(answer.body == tags[answer.headers["Etag"].strip('"')] for answer in got)


@pytest.mark.directory_store
def test_a_second_daemon_on_the_same_store_does_not_start(tmp_path: Path) -> None:
    """Two could write into one unfinished upload."""
    (first := tmp_path / "first").mkdir()
    with LateDaemon(first).running() as daemon:
        daemon.admin.ask("POST", "/api/images", form={"name": "one"})
        text = daemon.config.read_text()
        for port in (daemon.https, daemon.http):
            [other] = free_ports(1)
            text = text.replace(f"tcp:{port}:", f"tcp:{other}:")
        text = text.replace(f"state = {first}/state", f"state = {tmp_path}/second")
        text += f"[database]\ndsn = {daemon.dsn}\n[storage]\ndirectory = {first}/state/blobs\n"
        (second := tmp_path / "second.conf").write_text(text)
        command = [*daemon.twistd, "--nodaemon", "--pidfile=", "repoman", "--config", second]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
        assert done.returncode == 1
        assert "in use by another daemon" in done.stderr
        assert "Traceback" not in done.stderr + done.stdout
        assert daemon.admin.ask("PUT", "/api/images/raw/one", body=b"x").status == 200


@pytest.mark.directory_store  # an object store's connections are kept
def test_stalled_and_vanished_clients_leave_no_descriptor(daemon: Daemon, alice: Person) -> None:
    assert daemon.process is not None
    opened = Path(f"/proc/{daemon.process.pid}/fd")
    alice.ask("POST", "/api/images", form={"name": "one"})
    alice.ask("PUT", "/api/images/raw/one", body=bytes(8 * MIB))
    before = len(list(opened.iterdir()))
    place = begin(alice, "two", MIB)

    def vanish(number: int) -> None:
        if number % 2:
            connection = begin_part(alice, place, 0, MIB)
            connection.send(bytes(1000))
        else:
            connection = alice.connection()
            connection.request("GET", "/api/images/raw/one")
        time.sleep(0.05)
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.sock.close()
        connection.close()

    crowd = [threading.Thread(target=vanish, args=[number]) for number in range(20)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    wait_for(lambda: len(list(opened.iterdir())) <= before, 10)
    assert len(list(opened.iterdir())) <= before


def test_nothing_above_left_a_traceback(daemon: Daemon) -> None:
    assert "Traceback" not in daemon.log.read_text()


@pytest.fixture
def demoted(daemon: Daemon) -> Iterator[Person]:
    """An administrator, until a test ends that."""
    person = daemon.newcomer(groups="admins")
    yield person
    # Others ask the same daemon later, and count its administrators.
    assert daemon.admin.ask("DELETE", f"/api/users/{person.name}").status in (200, 404)


ENDS_OF_A_RIGHT: dict[str, tuple[str, str, dict[str, str], int]] = {
    # what the administrator does, with which form, and what the uploader is told
    "demoted": ("DELETE", "/api/groups/admins/users/{uploader}", {}, 403),
    "suspended": ("POST", "/api/users/{uploader}", {"suspended": "true"}, 403),
    "deleted": ("DELETE", "/api/users/{uploader}", {}, 403),
    "read-only": ("POST", "/api/images/{owner}/one", {"read_only": "true"}, 409),
    "given away": ("POST", "/api/images/{owner}/one", {"owner": "{other}"}, 409),
    "without hypervisor": ("POST", "/api/images/{owner}/one", {"hypervisor": "kvm"}, 409),
}
"""What ends somebody's right to upload to an image, while they upload."""


@pytest.mark.parametrize("end", ENDS_OF_A_RIGHT)
def test_the_right_to_upload_is_asked_again_when_the_bytes_are_there(
    daemon: Daemon, alice: Person, demoted: Person, end: str
) -> None:
    alice.ask("POST", "/api/images", form={"name": "one"})
    raw = f"/api/images/raw/{alice.name}/xen/one"
    if end != "without hypervisor":
        assert alice.ask("PUT", raw, body=b"old").status == 200
    headers = {"Upload-Complete": "?0", "Upload-Length": "6"}
    place = demoted.ask("POST", raw, headers=headers).headers["Location"]
    whole, part = demoted.connection(), begin_part(demoted, place, 0, 6)
    whole.putrequest("PUT", raw)
    whole.putheader("Content-Length", "6")
    whole.endheaders(b"new")
    part.send(b"new")
    running = "SELECT 1 FROM blob JOIN account ON account_id = uploader_id WHERE lease > now()"
    query = f"{running} AND user_name = '{demoted.name}'"
    wait_for(lambda: len(Ledger(daemon).query(query)) == 2, 5)
    method, path, form, status = ENDS_OF_A_RIGHT[end]
    names = {"uploader": demoted.name, "owner": alice.name, "other": daemon.newcomer().name}
    form = {name: value.format(**names) for name, value in form.items()}
    assert daemon.admin.ask(method, path.format(**names), form=form or None).status == 200
    for connection in (whole, part):
        connection.send(b"er!")
        refused = connection.getresponse()
        assert refused.status == status, refused.read()
        assert b"meanwhile" in (text := refused.read()) or b"during" in text
        connection.close()
    kept = alice.ask("GET", raw)
    if end in ("demoted", "suspended", "deleted", "read-only"):
        assert kept.body == b"old"
        assert owed(daemon, alice.name)[0] == 3
    else:
        assert kept.status == 404


def test_an_upload_has_an_end_however_slowly_it_comes(tmp_path: Path) -> None:
    with Daemon(tmp_path, limits={"upload_time": "1s"}).running() as daemon:
        alice = daemon.newcomer()
        place = begin(alice, "one", 6)
        whole, part = alice.connection(), begin_part(alice, place, 0, 6)
        whole.putrequest("PUT", "/api/images/raw/one")
        whole.putheader("Content-Length", "6")
        whole.endheaders(b"who")
        part.send(b"par")
        for connection in (whole, part):
            refused = connection.getresponse()
            assert refused.status == 408
            assert b"An upload may run for" in refused.read()
            connection.close()
        assert offset_of(alice, place) == 3
        refused_later = send(alice, place, 3, b"ts!", last=True)
        assert refused_later.status == 408
        assert "begin it anew" in refused_later.text
        assert alice.ask("GET", "/api/images/raw/one").status == 404
