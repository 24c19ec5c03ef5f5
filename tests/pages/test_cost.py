"""What a page costs: bytes, questions to the database, time of the reactor."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.pages.conftest import Browse
from tests.server import ROOT, Daemon, Person

MANY = 100_000
MOST_QUESTIONS = 3
MOST_SECONDS = 0.050
MOST_BYTES = 60_000
TRIES = 5

FILL = f"""
INSERT INTO image (owner_id, name, description, os_type, os_arch, unauthenticated_access)
SELECT (SELECT account_id FROM account WHERE user_name =
            CASE WHEN n % 100 = 0 THEN %(friend)s ELSE %(rich)s END),
       'image-' || lpad(n::text, 6, '0'), repeat('words about it ', 10), 'Linux', 'x86_64',
       n % 50 = 0
  FROM generate_series(1, {MANY}) n;
INSERT INTO image_hypervisor (image_id, position, hypervisor)
SELECT image_id, place, word FROM image, unnest(ARRAY['kvm', 'xen']) WITH ORDINALITY w(word, place);
INSERT INTO image_shared_with_user
SELECT image_id, (SELECT account_id FROM account WHERE user_name = %(friend)s)
  FROM image WHERE image_id % 20 = 0 ON CONFLICT DO NOTHING;
""".replace("image_id % 20", "image_id %% 20").replace("n % ", "n %% ")

USERS = 300


@pytest.fixture(scope="module")
def full(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Daemon, Person, Person, Path]]:
    """A daemon with many images, whose requests are counted."""
    place = tmp_path_factory.mktemp("full")
    daemon, book = Daemon(place), place / "book"
    daemon.twistd = ["env", f"COST_FILE={book}", sys.executable, ROOT / "tests/costly_twistd.py"]
    with daemon.running():
        rich, friend = daemon.newcomer("rich"), daemon.newcomer("friend")
        for number in range(USERS):
            form = {"user_name": f"somebody-{number:04}", "cert_dn": f"/C=CA/CN=S{number}"}
            assert daemon.admin.ask("POST", "/api/users", form=form).status == 200
        with psycopg2.connect(daemon.dsn) as database, database.cursor() as cursor:
            cursor.execute(FILL, {"rich": "rich", "friend": "friend"})
        vacuum = psycopg2.connect(daemon.dsn)
        vacuum.autocommit = True
        vacuum.cursor().execute("VACUUM ANALYZE")
        vacuum.close()
        yield daemon, rich, friend, book


PATHS = {
    "rich": ("/", "/?q=words&sort=-size", "/shared", "/image/rich/image-000001", "/me"),
    "friend": ("/", "/shared", "/public", "/shared?hypervisor=kvm&sort=-modified"),
    "admin": (
        "/all",
        "/all?owner=rich",
        "/image/rich/image-000001",
        "/users",
        "/users?q=some&after=somebody-0100",
        "/user/rich",
        "/groups",
        "/group/users",
        "/activity",
        "/activity/audit",
        "/new",
        "/users/new",
    ),
    "nobody": ("/", "/certificate", "/?q=image-0999", "/image/rich/image-000050"),
}


def noted(book: Path, path: str) -> list[Any]:
    """What the latest requests for a path cost."""
    lines = [json.loads(line) for line in book.read_text().splitlines()]
    return [line for line in lines if line["uri"] == path][-TRIES:]


@pytest.mark.parametrize(("who", "path"), [(w, p) for w, paths in PATHS.items() for p in paths])
def test_a_page_costs_little_with_many_images(full: Any, who: str, path: str) -> None:
    daemon, rich, friend, book = full
    people = {"rich": rich, "friend": friend, "admin": daemon.admin, "nobody": daemon.nobody}
    for _ in range(TRIES):
        assert people[who].ask("GET", path).status == 200
    while len(lines := noted(book, path)) < TRIES:
        time.sleep(0.02)  # a line is written a moment after its answer
    # Now and then the daemon's own chores come between.
    questions = statistics.median(line["questions"] for line in lines)
    assert questions <= MOST_QUESTIONS
    seconds = statistics.median(line["seconds"] for line in lines)
    print(f"{who} {path}: {questions} questions, {seconds * 1000:.1f} ms")
    assert seconds <= MOST_SECONDS


@pytest.mark.parametrize("who", ["rich", "admin", "nobody"])
def test_a_first_visit_is_small(full: Any, browse: Browse, who: str) -> None:
    daemon, rich, _, _ = full
    person = {"rich": rich, "admin": daemon.admin, "nobody": daemon.nobody}[who]
    answers: list[Any] = []
    page = browse(person, "about:blank")
    page.on("response", lambda answer: answers.append(answer))
    page.goto("/all" if who == "admin" else "/")
    page.wait_for_load_state("networkidle")
    total = {a.url: len(a.body()) + sum(len(f"{k}: {v}\r\n") for k, v in a.headers.items())
             for a in answers}  # fmt: skip
    print(who, sum(total.values()), total)
    assert any("style.css" in url for url in total)
    assert sum(total.values()) < MOST_BYTES
