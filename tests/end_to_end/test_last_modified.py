"""An address never goes back in time: whatever gives it other bytes dates them later."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import psycopg2
import pytest
from attrs import frozen

from tests.server import Answer, Daemon, Person, ask_plain

OLD, NEW = b"the bytes that were there", b"the other bytes"
DATED = (
    ("image_file", "bound"),
    ("image", "bound"),
    ("account", "freed"),
    ("repository", "freed"),
)
"""Where dates of addresses are kept."""
PUBLIC = {"unauthenticated_access": True}


def create(person: Person, name: str, content: bytes, **fields: object) -> None:
    """A public image with one file."""
    form = {"name": name, **PUBLIC, **fields}
    assert person.ask("POST", "/api/images", form=form).status == 201
    assert person.ask("PUT", f"/api/images/raw/{name}", body=content).status == 200


def change(person: Person, image: str, **fields: object) -> None:
    """Set fields of an image."""
    answer = person.ask("POST", f"/api/images/{image}", form=fields)
    assert answer.status == 200, answer


@frozen
class Scene:
    """A public image ``current`` of Alice's, which another or Bob's can take the place of."""

    daemon: Daemon
    alice: Person
    bob: Person

    @property
    def path(self) -> str:
        return f"/api/images/raw/{self.alice.name}/current"


def rename(scene: Scene) -> None:
    change(scene.alice, "current", name="away")
    change(scene.alice, "older", name="current")


def delete_and_rename(scene: Scene) -> None:
    scene.alice.ask("DELETE", "/api/images/current")
    change(scene.alice, "older", name="current")


def delete_and_upload(scene: Scene) -> None:
    scene.alice.ask("DELETE", "/api/images/current")
    create(scene.alice, "current", NEW)


def upload(scene: Scene) -> None:
    assert scene.alice.ask("PUT", "/api/images/raw/current", body=NEW).status == 200


def rename_an_empty_one_and_upload(scene: Scene) -> None:
    scene.alice.ask("POST", "/api/images", form={"name": "empty", **PUBLIC})
    change(scene.alice, "current", name="away")
    change(scene.alice, "empty", name="current")
    upload(scene)


def give_at_once(scene: Scene) -> None:
    change(scene.alice, "current", name="away")
    change(scene.daemon.admin, f"{scene.bob.name}/current", owner=scene.alice.name)
    change(scene.alice, "current", **PUBLIC)


def give_away_and_rename(scene: Scene) -> None:
    change(scene.daemon.admin, f"{scene.alice.name}/current", owner=scene.bob.name, name="gift")
    change(scene.alice, "older", name="current")


def accept_an_offer(scene: Scene) -> None:
    change(scene.bob, "current", owner=scene.alice.name)
    scene.alice.ask("DELETE", "/api/images/current")
    where = f"/api/offers/{scene.bob.name}/current"
    answer = scene.alice.ask("POST", where, form={"name": "current"})
    assert answer.status == 200, answer
    change(scene.alice, "current", **PUBLIC)


def rename_the_owner(scene: Scene) -> None:
    name = scene.alice.name
    for old, new in ((name, f"{name}-away"), (scene.bob.name, name)):
        form = {"user_name": new}
        assert scene.daemon.admin.ask("POST", f"/api/users/{old}", form=form).status == 200
    scene.bob.name = name


def delete_the_owner(scene: Scene) -> None:
    name = scene.alice.name
    assert scene.daemon.admin.ask("DELETE", f"/api/users/{name}").status == 200
    form = {"user_name": name}
    assert scene.daemon.admin.ask("POST", f"/api/users/{scene.bob.name}", form=form).status == 200
    scene.bob.name = name


def delete_the_owner_for_a_new_one(scene: Scene) -> None:
    name = scene.alice.name
    assert scene.daemon.admin.ask("DELETE", f"/api/users/{name}").status == 200
    carol = scene.daemon.person(f"Carol {name}", name)
    form = {"user_name": name, "cert_dn": carol.dn}
    assert scene.daemon.admin.ask("POST", "/api/users", form=form).status == 200
    create(carol, "current", NEW)


def with_two_files(scene: Scene) -> None:
    scene.alice.ask("DELETE", "/api/images/current")
    form = {"name": "current", "hypervisor": "xen,kvm", **PUBLIC}
    scene.alice.ask("POST", "/api/images", form=form)
    for hypervisor, content in (("kvm", NEW), ("xen", OLD)):
        scene.alice.ask("PUT", f"/api/images/raw/{hypervisor}/current", body=content)


def with_the_second_file(scene: Scene) -> None:
    scene.alice.ask("DELETE", "/api/images/current")
    form = {"name": "current", "hypervisor": "xen,kvm", **PUBLIC}
    scene.alice.ask("POST", "/api/images", form=form)
    scene.alice.ask("PUT", "/api/images/raw/kvm/current", body=OLD)


def reorder(scene: Scene) -> None:
    change(scene.alice, "current", hypervisor="kvm,xen")


def drop_the_first(scene: Scene) -> None:
    change(scene.alice, "current", hypervisor="kvm")


def give_the_first_its_file(scene: Scene) -> None:
    assert scene.alice.ask("PUT", "/api/images/raw/xen/current", body=NEW).status == 200


def nothing(scene: Scene) -> None:
    pass


WAYS: Mapping[str, tuple[Callable[[Scene], None], Callable[[Scene], None]]] = {
    **{
        way.__name__: (nothing, way)
        for way in (
            upload, rename, delete_and_rename, delete_and_upload, rename_an_empty_one_and_upload,
            give_at_once, give_away_and_rename, accept_an_offer, rename_the_owner,
            delete_the_owner, delete_the_owner_for_a_new_one,
        )
    },
    "reorder": (with_two_files, reorder),
    "drop_the_first": (with_two_files, drop_the_first),
    "give_the_first_its_file": (with_the_second_file, give_the_first_its_file),
}  # fmt: skip
"""How an address gets other bytes: what is done before it is looked at, and after."""


@pytest.fixture
def scene(daemon: Daemon) -> Scene:
    """Bytes that are older wait beside, and in another's hands."""
    alice, bob = daemon.newcomer(), daemon.newcomer()
    create(bob, "current", NEW)
    create(alice, "older", NEW)
    create(alice, "current", OLD)
    return Scene(daemon, alice, bob)


def dates(answer: Answer) -> tuple[datetime, datetime]:
    """Its Last-Modified and its Date."""
    modified, date = answer.headers["Last-Modified"], answer.headers["Date"]
    return parsedate_to_datetime(modified), parsedate_to_datetime(date)


class Fetchers:
    """Real programs that fetch what is newer than what they have.

    :param url: what they fetch.
    """

    def __init__(self, directory: Path, url: str) -> None:
        self.commands = {
            "wget": ["wget", "-q", "-N", url],
            "curl": ["curl", "-sS", "-R", "-z", "{}", "-o", "{}", url],
            # Its file has the time of the fetch.
            "curl without -R": ["curl", "-sS", "-z", "{}", "-o", "{}", url],
        }
        self._directory, self._name = directory, url.rpartition("/")[2]
        for name in self.commands:
            (directory / name).mkdir()

    def fetch(self) -> dict[str, bytes]:
        """What each has then."""
        found = {}
        for name, command in self.commands.items():
            file = self._directory / name / self._name
            done = [part.replace("{}", str(file)) for part in command]
            subprocess.run(done, cwd=file.parent, check=True, timeout=30)
            found[name] = file.read_bytes()
        return found


@pytest.mark.parametrize("way", WAYS)
def test_an_address_that_gets_other_bytes_is_modified(
    scene: Scene, tmp_path: Path, way: str
) -> None:
    prepare, act = WAYS[way]
    prepare(scene)
    url = scene.daemon.plain + scene.path
    fetchers = Fetchers(tmp_path, url)
    assert set(fetchers.fetch().values()) == {OLD}
    before = ask_plain(url)
    seen = before.headers["Last-Modified"]
    act(scene)
    assert set(fetchers.fetch().values()) == {NEW}
    after = ask_plain(url, headers={"If-Modified-Since": seen})
    assert (after.status, after.body) == (200, NEW)
    assert dates(before)[0] < dates(after)[0] <= dates(after)[1]
    part = ask_plain(url, headers={"Range": "bytes=3-", "If-Range": seen})
    assert (part.status, part.body) == (200, NEW), "bytes of two files are never put together"
    assert ask_plain(url, headers={"If-Unmodified-Since": seen}).status == 412
    writer = scene.bob if scene.bob.name == scene.alice.name else scene.alice
    if way == "delete_the_owner_for_a_new_one":
        return
    target = "/api/images/raw/default/current"
    if way in ("reorder", "give_the_first_its_file"):
        target = f"/api/images/raw/{'kvm' if way == 'reorder' else 'xen'}/current"
    guarded = writer.ask("PUT", target, body=b"mine", headers={"If-Unmodified-Since": seen})
    assert guarded.status == 412, guarded
    now = after.headers["Last-Modified"]
    assert ask_plain(url, headers={"If-Modified-Since": now}).status == 304
    assert ask_plain(url, headers={"Range": "bytes=3-", "If-Range": now}).status == 206
    assert (
        writer.ask("PUT", target, body=b"mine", headers={"If-Unmodified-Since": now}).status == 200
    )


def test_an_address_that_keeps_its_bytes_is_not_modified(scene: Scene) -> None:
    """Else a mirror of many gigabytes would fetch them all again."""
    alice, url = scene.alice, scene.daemon.plain + scene.path
    seen = {"If-Modified-Since": ask_plain(url).headers["Last-Modified"]}
    change(alice, "older", name="other")
    alice.ask("DELETE", "/api/images/other")
    for fields in (
        {"description": "a word"}, {"name": "current"}, {"hypervisor": "xen"},
        {"hypervisor": "xen,kvm"}, {"expires": "2001-01-01"}, {"expires": "2099-01-01"},
        {"unauthenticated_access": False}, PUBLIC, {"read_only": True}, {"read_only": False},
        {"owner": scene.bob.name}, {"owner": alice.name},
    ):  # fmt: skip
        change(alice, "current", **fields)
    for method in ("POST", "DELETE"):
        assert alice.ask(method, f"/api/images/current/share/user/{scene.bob.name}").status == 200
    assert ask_plain(url, headers=seen).status == 304


def test_addresses_that_change_in_one_second_have_as_many_dates(scene: Scene) -> None:
    """As an If-Modified-Since needs it, however quick they change, and whatever was fetched."""
    alice, url, seen = scene.alice, scene.daemon.plain + scene.path, []
    for _ in range(2):
        for content in (NEW, OLD):
            answer = ask_plain(url, headers={"If-Modified-Since": seen[-1]} if seen else {})
            seen.append(answer.headers["Last-Modified"])
            assert (answer.status, answer.body) == (200, OLD if content is NEW else NEW)
            change(alice, "current", name="third")
            change(alice, "older", name="current")
            change(alice, "third", name="older")
    moments = [parsedate_to_datetime(one) for one in seen]
    assert sorted(set(moments)) == moments


@contextmanager
def holding(daemon: Daemon, statement: str) -> Iterator[None]:
    """What a statement locks is another's until the block ends."""
    with psycopg2.connect(daemon.dsn) as database, database.cursor() as cursor:
        cursor.execute(statement)
        yield
    database.close()


def test_what_is_seen_later_than_it_is_dated_is_modified(scene: Scene) -> None:
    """Whoever fetched the old bytes meanwhile, and tells the time of that, has no others."""
    url, seen = scene.daemon.plain + scene.path, ""
    with ThreadPoolExecutor() as pool:
        with holding(scene.daemon, "SELECT FROM audit_chain FOR UPDATE"):
            done = pool.submit(upload, scene)
            begun = time.monotonic()
            while not done.done() and time.monotonic() < begun + 2.1:
                before = ask_plain(url)
                assert before.body == OLD
                seen = before.headers["Date"]
        done.result()
    for since in (seen, scene.alice.ask("GET", scene.path).headers["Date"]):
        after = ask_plain(url, headers={"If-Modified-Since": since})
        assert (after.status, after.body) == (200, NEW)
    for since in (after.headers["Last-Modified"], "Sat, 01 Jan 2050 00:00:00 GMT"):
        assert ask_plain(url, headers={"If-Modified-Since": since}).status == 304


def test_a_word_that_gets_another_reading_is_modified(daemon: Daemon) -> None:
    """What a path of two names means to whom: a user's image, then one's own for a hypervisor."""
    alice, word = daemon.newcomer(), daemon.newcomer()
    create(word, "current", OLD)
    form = {"name": "current", "hypervisor": "xen"}
    alice.ask("POST", "/api/images", form=form)
    path = f"/api/images/raw/{word.name}/current"
    seen = {"If-Modified-Since": alice.ask("GET", path).headers["Last-Modified"]}
    assert alice.ask("GET", path, headers=seen).status == 304
    daemon.admin.ask("DELETE", f"/api/users/{word.name}")
    change(alice, "current", hypervisor=word.name)
    assert alice.ask("PUT", "/api/images/raw/current", body=NEW).status == 200
    answer = alice.ask("GET", path, headers=seen)
    assert (answer.status, answer.body) == (200, NEW)
    # And back: the word is free again, and somebody is called so.
    seen = {"If-Modified-Since": answer.headers["Last-Modified"]}
    bob = daemon.newcomer()
    create(bob, "current", OLD, unauthenticated_access=True)
    change(alice, "current", hypervisor="xen")
    daemon.admin.ask("POST", f"/api/users/{bob.name}", form={"user_name": word.name})
    answer = alice.ask("GET", path, headers=seen)
    assert (answer.status, answer.body) == (200, OLD)


@pytest.fixture
def dated_ahead(scene: Scene) -> Iterator[None]:
    """The image has a date of a clock that was decades ahead; others' dates are not to follow."""
    with psycopg2.connect(scene.daemon.dsn) as database, database.cursor() as cursor:
        cursor.execute(
            "UPDATE image_file SET bound = '2050-01-01 00:00:00.5+0' WHERE image_id IN"
            " (SELECT image_id FROM image JOIN account ON account_id = owner_id"
            "   WHERE name = 'current' AND user_name = %s)",
            (scene.alice.name,),
        )
    database.close()
    yield
    with psycopg2.connect(scene.daemon.dsn) as database, database.cursor() as cursor:
        for table, column in DATED:
            cursor.execute(f"UPDATE {table} SET {column} = NULL WHERE {column} > '2049-01-01'")
    database.close()


@pytest.mark.parametrize("way", [rename, delete_and_upload, rename_the_owner, reorder])
def test_a_clock_that_was_set_back_takes_no_address_back(
    scene: Scene, dated_ahead: None, way: Callable[[Scene], None]
) -> None:
    """The date is then later than now, so it is not told; but it counts."""
    if way is reorder:
        with_two_files(scene)
    url = scene.daemon.plain + scene.path
    way(scene)
    seen = {"If-Modified-Since": "Sat, 01 Jan 2050 00:00:00 GMT"}
    answer = ask_plain(url, headers=seen)
    assert (answer.status, answer.body) == (200, NEW)
    modified, date = dates(answer)
    assert modified == date
    later = ask_plain(url, headers={"If-Modified-Since": answer.headers["Last-Modified"]})
    assert later.status == 200
