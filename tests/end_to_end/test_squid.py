"""A squid with its stock rules between: never stale by one request, and the bytes from it."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psycopg2
import pytest

from tests.end_to_end.test_last_modified import NEW, OLD, PUBLIC, WAYS, Scene, change, scene
from tests.server import Daemon, ask_plain
from tests.squid import Squid, squid

__all__ = ["scene"]

LARGE = os.urandom(3_000_000)

AGE = """
UPDATE image_file SET uploaded = uploaded - interval '10 days', bound = bound - interval '10 days'
 WHERE image_id IN (SELECT image_id FROM image JOIN account ON account_id = owner_id
                     WHERE user_name = ANY(%s))
"""


@pytest.fixture(scope="module")
def proxy() -> Iterator[Squid]:
    """A squid of all tests here: each has names of its own."""
    # Not below pytest's own directory, which nobody but us may enter.
    with tempfile.TemporaryDirectory(prefix="repoman-squid-") as place, squid(Path(place)) as made:
        yield made


def told(daemon: Daemon, path: str) -> list[tuple[str, int]]:
    """The statuses and bytes with which we answered for a path."""
    log = (daemon.directory / "state" / "log" / "access.log").read_text().splitlines()
    found = [line for line in log if f"{path} " in line or f'{path}"' in line]
    return [
        (re.findall(r" status=(\d+)", line)[0], int(re.findall(r" bytes=(\d+)", line)[0]))
        for line in found
    ]


def test_unchanged_bytes_come_from_the_cache_and_we_say_304_each_time(
    daemon: Daemon, proxy: Squid
) -> None:
    alice = daemon.newcomer()
    alice.ask("POST", "/api/images", form={"name": "large", **PUBLIC})
    alice.ask("PUT", "/api/images/raw/large", body=LARGE)
    path = f"/api/images/raw/{alice.name}/large"
    for _ in range(4):
        answer = proxy.ask(daemon.plain + path)
        assert (answer.status, answer.body) == (200, LARGE)
    part = proxy.ask(daemon.plain + path, {"Range": "bytes=1000-1999"})
    assert (part.status, part.body) == (206, LARGE[1000:2000])
    assert told(daemon, path) == [("200", len(LARGE)), *[("304", 0)] * 4]


def age(scene: Scene) -> None:
    """Let all be ten days old: a squid that is told nothing does not ask for two of them."""
    with psycopg2.connect(scene.daemon.dsn) as database, database.cursor() as cursor:
        cursor.execute(AGE, ([scene.alice.name, scene.bob.name],))
    database.close()


@pytest.mark.parametrize("way", WAYS)
def test_other_bytes_are_served_at_once(scene: Scene, proxy: Squid, way: str) -> None:
    prepare, act = WAYS[way]
    prepare(scene)
    age(scene)
    url = scene.daemon.plain + scene.path
    for _ in range(2):
        assert proxy.ask(url).body == OLD
    act(scene)
    answer = proxy.ask(url)
    assert (answer.status, answer.body) == (200, NEW)
    assert answer.headers["Etag"] == ask_plain(url).headers["Etag"]


def make_private(scene: Scene) -> None:
    change(scene.alice, "current", unauthenticated_access=False)


def expire(scene: Scene) -> None:
    change(scene.alice, "current", expires="2001-01-01")


def delete(scene: Scene) -> None:
    assert scene.alice.ask("DELETE", "/api/images/current").status == 200


def rename(scene: Scene) -> None:
    change(scene.alice, "current", name="away")


def give_away(scene: Scene) -> None:
    change(scene.daemon.admin, f"{scene.alice.name}/current", owner=scene.bob.name, name="gift")


def delete_the_owner(scene: Scene) -> None:
    assert scene.daemon.admin.ask("DELETE", f"/api/users/{scene.alice.name}").status == 200


def rename_the_owner(scene: Scene) -> None:
    form = {"user_name": f"{scene.alice.name}-away"}
    path = f"/api/users/{scene.alice.name}"
    assert scene.daemon.admin.ask("POST", path, form=form).status == 200


ENDS: Mapping[str, tuple[Callable[[Scene], None], int]] = {
    "private": (make_private, 403),
    "expired": (expire, 410),
    "deleted": (delete, 403),
    "renamed": (rename, 403),
    "given away": (give_away, 403),
    "owner deleted": (delete_the_owner, 403),
    "owner renamed": (rename_the_owner, 403),
}
"""How an address loses its bytes, and what nobody in particular is told then."""


@pytest.mark.parametrize("end", ENDS)
def test_what_is_no_more_for_everybody_is_refused_at_once(
    scene: Scene, proxy: Squid, end: str
) -> None:
    act, status = ENDS[end]
    age(scene)
    url = scene.daemon.plain + scene.path
    for _ in range(2):
        assert proxy.ask(url).body == OLD
    act(scene)
    answer = proxy.ask(url)
    assert (answer.status, OLD in answer.body) == (status, False)
    if end in ("private", "expired"):
        change(scene.alice, "current", **PUBLIC, expires="")
        assert proxy.ask(url).body == OLD, "and no refusal is kept"


def beside(scene: Scene) -> list[str]:
    """All that tells of what there is at an address, but for the bytes."""
    raw = scene.path.rpartition("/")[0]
    owner, record = scene.alice.name, scene.path.replace("/raw/", "/")
    return [
        f"{scene.path}.sha256", f"{scene.path}.md5", f"/api/images/raw/{owner}/SHA256SUMS",
        record, f"{record}?view=full", f"/api/images?public=true&owner={owner}",
        f"/api/images?public=true&view=full&owner={owner}", "/api/images/raw/", f"{raw}/",
    ]  # fmt: skip


@pytest.mark.parametrize("change", [*WAYS, *ENDS])
def test_what_is_told_of_an_address_is_never_stale(scene: Scene, proxy: Squid, change: str) -> None:
    if change in WAYS:
        prepare, act = WAYS[change]
        prepare(scene)
    else:
        act, _ = ENDS[change]
    age(scene)
    urls = [scene.daemon.plain + path for path in beside(scene)]
    for url in urls:
        for _ in range(2):
            proxy.ask(url)
    act(scene)
    for url in urls:
        through, straight = proxy.ask(url), ask_plain(url)
        assert (through.status, through.body) == (straight.status, straight.body), url


def test_suspending_an_owner_means_the_same_through_the_cache(scene: Scene, proxy: Squid) -> None:
    age(scene)
    url = scene.daemon.plain + scene.path
    assert proxy.ask(url).body == OLD
    for suspended in (True, False):
        form = {"suspended": suspended}
        path = f"/api/users/{scene.alice.name}"
        assert scene.daemon.admin.ask("POST", path, form=form).status == 200
        assert proxy.ask(url).status == ask_plain(url).status
