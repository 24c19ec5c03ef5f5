"""Two daemons on hosts of their own, PostgreSQL and Ceph on a third, haproxy in front."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from attrs import frozen

from tests.ceph import PROGRAMS, Ceph
from tests.end_to_end.conftest import MIB
from tests.end_to_end.test_resumable_uploads import begin, begin_part
from tests.end_to_end.test_rivals import at_once
from tests.ledger import kill, wait_for
from tests.network import Host, network
from tests.pages.test_forgery import post, token_of
from tests.postgres import Listening, on_server
from tests.server import ROOT, START_SECONDS, Answer, Daemon, Person, ask_plain, free_ports
from tests.test_operator import operate

pytestmark = pytest.mark.lasting_store

PART = 5 * MIB
"""Of the object store: the least that it takes."""

CONTENT = os.urandom(3 * PART + 12345)
PATIENCE = 40.0
"""Seconds in which a dead daemon's work must be another's."""


class Member(Daemon):
    """One of the daemons.

    :param host: where it runs.
    :param settings: beside what is due to the host.
    """

    def __init__(self, directory: Path, host: Host, **settings: Any) -> None:
        directory.mkdir()
        self.host = host
        self.monitoring = f"http://{host.address}:9469"
        server = {
            "https": f"haproxy:tcp:8443:interface={host.address}",
            "http": f"haproxy:tcp:8080:interface={host.address}",
            **settings.pop("server"),
        }
        metrics = {"endpoint": f"tcp:9469:interface={host.address}"}
        super().__init__(directory, server=server, metrics=metrics, **settings)
        self.twistd = [*host.enter, *self.twistd]

    def start(self) -> None:
        """Start it, with what its log says from now on."""
        self._begun = self.log.stat().st_size if self.log.exists() else 0
        super().start()

    def _wait_until_serving(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process and self.process.poll() is None:
            try:
                if ask_plain(f"{self.monitoring}/readyz").status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"The server did not start:\n{self.log.read_text()[-4000:]}")

    @property
    def does_the_chores(self) -> bool:
        """Its log says so, since its start."""
        said = self.log.read_text()[self._begun :]
        lines = re.findall("(This|Another) daemon (?:does|may do) the chores", said)
        return lines[-1:] == ["This"]


@frozen
class Door:
    """A port of haproxy's, as a Person knows their daemon."""

    https: int
    url: str
    ca_directory: Path

    def __call__(self, person: Person) -> Person:
        """The same person, who comes through here."""
        door: Any = self
        return Person(door, person.name, person.dn, person.proxy)


@frozen
class Site:
    """All of it.

    :ivar front: to whichever daemon is there.
    :ivar doors: to one daemon each.
    """

    members: tuple[Member, Member]
    front: Door
    doors: tuple[Door, Door]
    dsn: str
    ceph: Ceph
    bucket: str

    def newcomer(self, **fields: Any) -> Person:
        """A new user, who comes through the front."""
        return self.front(self.members[0].newcomer(**fields))

    @contextmanager
    def without(self, number: int) -> Iterator[None]:
        """Kill a daemon; start it again when the block has ended."""
        kill(self.members[number])
        try:
            yield
        finally:
            self.members[number].start()
            self.until_taken_in(number)

    @contextmanager
    def held(self, person: Person) -> Iterator[None]:
        """Let no transaction get at a person's images until the block ends."""
        with closing(psycopg2.connect(self.dsn)) as connection:
            connection.cursor().execute(
                "SELECT 1 FROM image JOIN account ON account_id = owner_id"
                " WHERE user_name = %s FOR UPDATE OF image",
                (person.name,),
            )
            yield

    def durable(self, upload: str) -> int:
        """How many bytes of an upload are known to be stored."""
        blob = upload.rpartition("/")[2]
        [[count]] = on_server(self.dsn, f"SELECT durable FROM blob WHERE blob = '{blob}'")
        return int(count)

    def is_complete(self, upload: str) -> bool:
        """The store has all of it, as one object."""
        blob = upload.rpartition("/")[2]
        return blob in self.ceph.s3cmd("ls", "--recursive", f"s3://{self.bucket}/data/")

    def until_taken_in(self, number: int) -> None:
        """Wait until haproxy has noticed that a daemon is there."""
        for door in (self.doors[number], self.front):
            nobody = door(Person(self.members[0]))
            assert wait_for(lambda one=nobody: _status(one) == 403, 20) < 20


def _status(person: Person) -> int:
    try:
        return person.ask("GET", "/api/whoami").status
    except (OSError, http.client.HTTPException):
        return 0


@contextmanager
def haproxy(place: Path, hosts: list[Host]) -> Iterator[list[int]]:
    """The haproxy that we show, on ports of the test's; and a door to each daemon alone."""
    ports = free_ports(2 + len(hosts))
    text = (ROOT / "etc" / "haproxy.cfg").read_text()
    for bound, port in ((443, ports[0]), (80, ports[1])):
        text = text.replace(f"bind :{bound}\n", f"bind 127.0.0.1:{port}\n")
    for number, host in enumerate(hosts, 11):
        text = text.replace(f"192.0.2.{number}", host.address)
        door = ports[number - 9]
        text += f"\nlisten door{number}\n    bind 127.0.0.1:{door}\n"
        text += f"    server it {host.address}:8443\n"
    (place / "haproxy.cfg").write_text(text)
    process = subprocess.Popen(["haproxy", "-db", "-q", "-f", place / "haproxy.cfg"])
    try:
        yield ports
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    missing = [p for p in ("haproxy", "setpriv", *PROGRAMS, "s3cmd") if shutil.which(p) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    place = tmp_path_factory.mktemp("site")
    with ExitStack() as stack:
        hosts = stack.enter_context(network("one", "two", "store"))
        (place / "ceph").mkdir()
        ceph = Ceph(place / "ceph", hosts["store"].address, hosts["store"].enter)
        stack.callback(ceph.stop)
        ceph.start()
        store = hosts["store"]
        database = stack.enter_context(Listening.running(store.address, 5432, store.enter))
        dsn, bucket = database.dsn, ceph.bucket()
        ports = stack.enter_context(haproxy(place, [hosts["one"], hosts["two"]]))
        url = f"https://localhost:{ports[0]}"
        given = {
            "server": {"url": url, "http_url": f"http://localhost:{ports[1]}"},
            "database": {"dsn": dsn},
            "storage": ceph.storage(bucket, part_size="5MiB"),
            "limits": {"uploads": 100},
        }
        one = Member(place / "one", hosts["one"], **evolved(given, place / "one"))
        tls = {
            "certificate": one.directory / "hostcert.pem",
            "key": one.directory / "hostkey.pem",
            "ca_directory": one.ca_directory,
        }
        same = {"tls": tls, "accounts": {"admins": one.directory / "admins"}}
        two = Member(place / "two", hosts["two"], **evolved(given | same, place / "two"))
        doors = [Door(port, url, one.ca_directory) for port in (ports[0], *ports[2:])]
        one.https, one.url = ports[0], url
        for member in (one, two):
            stack.callback(member.stop)
            member.start()
        made = Site((one, two), doors[0], (doors[1], doors[2]), dsn, ceph, bucket)
        for number in range(2):
            made.until_taken_in(number)
        yield made


def evolved(given: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Settings for one daemon, whose state is its own."""
    return given | {"server": {**given["server"], "state": directory / "state"}}


def eventually(ask: Callable[[], Answer], *wrong: int) -> Answer:
    """The answer, as soon as it is none that says to try again."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            answer = ask()
        except (OSError, http.client.HTTPException):
            time.sleep(0.2)
            continue
        if answer.status not in (502, 503, *wrong):
            return answer
        time.sleep(0.5)
    raise AssertionError(answer)


def test_one_of_them_does_the_chores_and_the_other_when_it_is_killed(site: Site) -> None:
    wait_for(lambda: any(m.does_the_chores for m in site.members), 10)
    elected = [member.does_the_chores for member in site.members]
    assert sorted(elected) == [False, True]
    number = elected.index(True)
    with site.without(number):
        assert wait_for(lambda: site.members[1 - number].does_the_chores, PATIENCE) < PATIENCE
    time.sleep(6)  # for who was started again to stand for it
    assert [member.does_the_chores for member in site.members] == elected[::-1]


@pytest.mark.parametrize("sent", [0, 2 * PART + MIB, len(CONTENT)])
def test_an_upload_whose_daemon_is_killed_goes_on_through_the_other(site: Site, sent: int) -> None:
    alice = site.newcomer()
    upload = begin(site.doors[0](alice), "one", len(CONTENT))
    connection = begin_part(site.doors[0](alice), upload, 0, len(CONTENT))
    connection.send(CONTENT[:sent])
    recorded = 2 * PART if sent == 2 * PART + MIB else 0
    assert wait_for(lambda: site.durable(upload) >= recorded, 20) < 20
    with site.without(0):
        connection.close()
        assert go_on(site, alice, upload) >= recorded


def go_on(site: Site, alice: Person, upload: str) -> int:
    """End an upload through who is left, unless it has ended; answer where it went on."""
    answer = eventually(lambda: alice.ask("HEAD", upload))
    offset = len(CONTENT)
    if answer.status == 200:
        offset = int(answer.headers["Upload-Offset"])
        assert offset % PART == 0 or offset == len(CONTENT)
        rest = {"Upload-Offset": str(offset), "Upload-Complete": "?1"}
        rest["Content-Type"] = "application/partial-upload"
        again = partial(alice.ask, "PATCH", upload, body=CONTENT[offset:], headers=rest)
        answer = eventually(again)
        assert answer.status == 200, answer
    stored = alice.ask("GET", "/api/images/one").json
    assert stored["checksum"]["value"] == hashlib.sha256(CONTENT).hexdigest()
    assert alice.ask("GET", "/api/images/raw/one").body == CONTENT
    account = f"SELECT used, reserved FROM account WHERE user_name = '{alice.name}'"
    assert on_server(site.dsn, account) == [(len(CONTENT), 0)]
    return offset


def test_or_is_killed_between_the_completion_and_the_transaction(site: Site) -> None:
    alice = site.newcomer()
    upload = begin(site.doors[0](alice), "one", len(CONTENT))
    connection = begin_part(site.doors[0](alice), upload, 0, len(CONTENT))
    connection.send(CONTENT[:-1])
    with site.held(alice):
        assert not site.is_complete(upload)
        connection.send(CONTENT[-1:])
        assert wait_for(lambda: site.is_complete(upload), 20) < 20
        kill(site.members[0])
    with site.without(0):
        connection.close()
        assert alice.ask("GET", "/api/images/raw/one").status == 404
        go_on(site, alice, upload)


def test_or_is_killed_while_the_store_is_silent_over_its_end(site: Site) -> None:
    alice = site.newcomer()
    upload = begin(site.doors[0](alice), "one", len(CONTENT))
    connection = begin_part(site.doors[0](alice), upload, 0, len(CONTENT))
    connection.send(CONTENT[:-MIB])
    assert wait_for(lambda: site.durable(upload) >= 2 * PART, 20) < 20
    with site.ceph.frozen():
        connection.send(CONTENT[-MIB:])
        time.sleep(1)
        kill(site.members[0])
    with site.without(0):
        connection.close()
        assert go_on(site, alice, upload) >= 2 * PART


def test_who_comes_back_through_the_other_daemon_gets_on_while_the_first_still_waits(
    site: Site,
) -> None:
    alice = site.newcomer()
    upload = begin(site.doors[0](alice), "one", len(CONTENT))
    connection = begin_part(site.doors[0](alice), upload, 0, len(CONTENT))
    connection.send(CONTENT[: PART + 1000])
    time.sleep(1)
    begun = time.monotonic()
    answer = site.doors[1](alice).ask("HEAD", upload)
    assert time.monotonic() - begun < 5
    assert (answer.status, answer.headers["Upload-Offset"]) == (200, str(PART + 1000))
    connection.close()


def test_a_daemon_that_was_frozen_does_no_harm_when_it_awakes(site: Site) -> None:
    alice, content = site.newcomer(), os.urandom(len(CONTENT))
    upload = begin(site.doors[0](alice), "one", len(CONTENT))
    connection = begin_part(site.doors[0](alice), upload, 0, len(CONTENT))
    connection.send(CONTENT[: 2 * PART + MIB])
    time.sleep(1.5)
    process = site.members[0].process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        assert eventually(lambda: alice.ask("HEAD", upload)).status == 200
        # Other bytes than the first daemon still has on their way.
        offset = int(alice.ask("HEAD", upload).headers["Upload-Offset"])
        rest = {"Upload-Offset": str(offset), "Upload-Complete": "?1"}
        rest["Content-Type"] = "application/partial-upload"
        tail = content[offset:]
        answer = eventually(lambda: alice.ask("PATCH", upload, body=tail, headers=rest))
        assert answer.status == 200, answer
    finally:
        process.send_signal(signal.SIGCONT)
    with suppress(OSError):
        connection.send(CONTENT[2 * PART + MIB :])
    site.until_taken_in(0)
    time.sleep(2)
    for door in site.doors:
        got = door(alice).ask("GET", "/api/images/raw/one").body
        assert got == CONTENT[:offset] + tail
    account = f"SELECT used, reserved FROM account WHERE user_name = '{alice.name}'"
    assert on_server(site.dsn, account) == [(len(CONTENT), 0)]
    connection.close()


@pytest.mark.parametrize("had", [0, 5 * MIB, 30 * MIB])
def test_a_download_whose_daemon_is_killed_goes_on_with_a_range(site: Site, had: int) -> None:
    alice, content = site.newcomer(), os.urandom(48 * MIB)
    alice.ask("POST", "/api/images", form={"name": "one"})
    stored = alice.ask("PUT", "/api/images/raw/one", body=content)
    assert stored.status == 200, stored
    connection = site.doors[0](alice).connection()
    connection.request("GET", "/api/images/raw/one")
    response = connection.getresponse()
    tag, got = response.headers["ETag"], response.read(had)
    with site.without(0):
        try:
            while block := response.read(MIB):
                got += block
        except (OSError, http.client.HTTPException):
            pass
        assert len(got) < len(content)
        headers = {"Range": f"bytes={len(got)}-", "If-Range": tag}
        rest = eventually(lambda: alice.ask("GET", "/api/images/raw/one", headers=headers))
        assert rest.status == 206
        assert got + rest.body == content


def test_of_40_reservations_across_both_into_room_for_10_exactly_10_are_admitted(
    site: Site,
) -> None:
    alice = site.newcomer(quota=10 * MIB)
    for number in range(40):
        alice.ask("POST", "/api/images", form={"name": f"i{number}"})
    headers = {"Upload-Complete": "?0", "Upload-Length": str(MIB)}
    calls = [
        partial(site.doors[n % 2](alice).ask, "POST", f"/api/images/raw/i{n}", headers=headers)
        for n in range(40)
    ]
    answers = at_once(calls)
    assert sorted(answer.status for answer in answers) == [201] * 10 + [413] * 30


def test_what_one_daemon_changes_holds_at_the_other_at_once(site: Site) -> None:
    alice, bob = site.newcomer(), site.newcomer()
    admins = [door(site.members[0].admin) for door in site.doors]
    for here, there in ((0, 1), (1, 0)):
        mine, theirs = (site.doors[n](alice) for n in (here, there))
        others, name = site.doors[there](bob), f"image{here}"
        path = f"/api/images/{alice.name}/{name}"
        assert mine.ask("POST", "/api/images", form={"name": name}).status == 201
        assert theirs.ask("GET", path).status == 200
        assert others.ask("GET", path).status in (403, 404)
        shared = f"/api/images/{name}/share/user/{bob.name}"
        for method, status in (("POST", {200}), ("DELETE", {403, 404})):
            assert mine.ask(method, shared).status == 200
            assert others.ask("GET", path).status in status
        for value, status in (("true", {403}), ("false", {200})):
            form = {"suspended": value}
            assert admins[here].ask("POST", f"/api/users/{bob.name}", form=form).status == 200
            assert others.ask("GET", f"/api/users/{bob.name}").status in status
        stored = mine.ask("PUT", f"/api/images/raw/{name}", body=name.encode())
        found = [p.ask("GET", f"/api/images/raw/{name}") for p in (mine, theirs)]
        assert [answer.body for answer in found] == [name.encode()] * 2
        assert len({(a.headers["Etag"], a.headers["Last-Modified"]) for a in found}) == 1
        assert stored.status == 200
        assert admins[there].ask("GET", "/api/audit").json[0]["address"] == "127.0.0.1"


def test_a_form_that_one_daemon_made_is_taken_by_the_other(site: Site) -> None:
    alice = site.newcomer()
    here, there = (door(alice) for door in site.doors)
    here.ask("POST", "/api/images", form={"name": "disk"})
    action = f"/image/{alice.name}/disk/delete"
    browser = {"Origin": f"https://localhost:{site.doors[1].https}"}
    done = post(there, action, token_of(here, action), browser, typed="disk")
    assert done.status in (200, 303), done
    assert here.ask("GET", "/api/images/disk").status == 404


def test_a_transfer_through_one_daemon_is_seen_at_the_other(site: Site) -> None:
    alice = site.newcomer()
    alice.ask("POST", "/api/images", form={"name": "one"})
    upload = begin(site.doors[0](alice), "one", len(CONTENT))
    connection = begin_part(site.doors[0](alice), upload, 0, len(CONTENT))
    connection.send(CONTENT[:1000])
    admin = site.doors[1](site.members[0].admin)

    def found() -> list[dict[str, Any]]:
        listed = admin.ask("GET", "/api/transfers").json
        return [one for one in listed if one["user"] == alice.name and one["path"] == upload]

    assert wait_for(found, 10) < 10
    [transfer] = found()
    assert (transfer["address"], bool(transfer["daemon"])) == ("127.0.0.1", True)
    connection.close()
    assert wait_for(lambda: not found(), 10) < 10


def test_the_audit_is_one_chain_after_changes_through_both_at_once(site: Site) -> None:
    people = [site.doors[n % 2](site.newcomer()) for n in range(6)]

    def change(person: Person) -> Answer:
        for number in range(10):
            person.ask("POST", "/api/images", form={"name": f"i{number}"})
            answer = person.ask("DELETE", f"/api/images/i{number}")
        return answer

    answers = at_once([partial(change, person) for person in people])
    assert [answer.status for answer in answers] == [200] * 6
    for member in site.members:
        done = operate("verify-audit", "-c", member.config)
        assert done.returncode == 0, done.stderr
