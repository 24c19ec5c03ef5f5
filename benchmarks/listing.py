"""How long a page of images takes, with 100 of them and with 100,000.

``python benchmarks/listing.py`` starts a server of its own, fills its database,
and prints milliseconds per request (the median of many, over one kept TLS
connection) for the first page of at most 100 full records, and how many are on
it.  The ratio that it prints last is the largest among pages of equal length.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.postgres import on_server
from tests.server import Daemon, Person

FEW, MANY = 100, 100_000
REPEATS = 30
PAGE = "view=full&limit=100"
QUERIES = {
    "by name": PAGE,
    "by name, from the end": f"{PAGE}&sort=-name",
    "by time": f"{PAGE}&sort=modified",
    "the latest": f"{PAGE}&sort=-modified",
    "by size": f"{PAGE}&sort=size",
    "the largest": f"{PAGE}&sort=-size",
    "of one owner": f"{PAGE}&owner=owner7",
    "one OS": f"{PAGE}&os_type=linux",
    "one hypervisor": f"{PAGE}&hypervisor=kvm",
}

FILL = """
INSERT INTO word SELECT 'owner' || n, 'user' FROM generate_series(0, 99) n ON CONFLICT DO NOTHING;
INSERT INTO account (user_name) SELECT 'owner' || n FROM generate_series(0, 99) n
    ON CONFLICT DO NOTHING;
INSERT INTO image (owner_id, name, description, os_type, modified, uploaded)
    SELECT account_id, 'image-' || md5(n::text), 'Number ' || n,
           CASE n % 3 WHEN 0 THEN 'linux' WHEN 1 THEN 'bsd' END, now() - n * interval '1 min', now()
      FROM generate_series({first}, {last}) n
      JOIN account ON user_name = 'owner' || n % 100;
INSERT INTO image_hypervisor (image_id, position, hypervisor)
    SELECT image_id, place, hypervisor FROM image,
           (VALUES (1, 'xen'), (2, 'kvm')) AS listed (place, hypervisor)
     WHERE NOT EXISTS (SELECT FROM image_hypervisor h WHERE h.image_id = image.image_id);
INSERT INTO blob (blob, state, payer_id, image_id, hypervisor, size, sha256)
    SELECT md5(image_id::text), 'present', owner_id, image_id, 'kvm', image_id * 7919 % 100003,
           repeat(md5(image_id::text), 2)
      FROM image WHERE NOT EXISTS (SELECT FROM blob b WHERE b.image_id = image.image_id);
INSERT INTO image_file (image_id, hypervisor, blob)
    SELECT image_id, hypervisor, blob FROM blob
     WHERE state = 'present' AND NOT EXISTS (SELECT FROM image_file f WHERE f.blob = blob.blob);
INSERT INTO image_shared_with_user
    SELECT image_id, (SELECT account_id FROM account WHERE user_name = 'few') FROM image
     WHERE image_id <= 100 OR image_id % 1000 = 0 ON CONFLICT DO NOTHING;
INSERT INTO image_shared_with_group
    SELECT image_id, (SELECT group_id FROM user_group WHERE name = 'half') FROM image
     WHERE image_id % 2 = 0 ON CONFLICT DO NOTHING;
"""


def fill(daemon: Daemon, first: int, last: int) -> None:
    """Let there be images of these numbers, and let the planner know of them."""
    on_server(daemon.dsn, FILL.format(first=first, last=last))
    on_server(daemon.dsn, "VACUUM ANALYZE")


Times = dict[tuple[str, str], tuple[float, int]]
"""Milliseconds and rows, by who asked and what for."""


def milliseconds(person: Person, query: str) -> tuple[float, int]:
    """The median time of a request, and how many images are on the page."""
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        answer = person.ask("GET", f"/api/images?{query}")
        times.append(time.perf_counter() - begin)
        assert answer.status == 200, answer
    return statistics.median(times) * 1000, len(answer.json)


def measure(daemon: Daemon, people: dict[str, Person]) -> Times:
    """Each query by each person."""
    return {
        (who, name): milliseconds(person, query)
        for who, person in people.items()
        for name, query in QUERIES.items()
    }


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as directory, Daemon(Path(directory)).running() as daemon:
        people = {
            "administrator": daemon.admin,
            "sees half": daemon.newcomer("half"),
            "sees few": daemon.newcomer("few"),
        }
        daemon.admin.ask("POST", "/api/groups", form={"name": "half", "users": "half"})
        fill(daemon, 1, FEW)
        small = measure(daemon, people)
        fill(daemon, FEW + 1, MANY)
        large = measure(daemon, people)
    show(small, large)


def show(small: Times, large: Times) -> None:
    """Print a line for each query, and the largest ratio among pages of equal length."""
    print(f"{'who':14} {'what':24} {FEW:>8} (rows) {MANY:>8} (rows)  times")
    ratios = []
    for (who, name), (before, rows) in small.items():
        after, more = large[who, name]
        times = after / before
        print(f"{who:14} {name:24} {before:8.1f} {rows:6} {after:8.1f} {more:6}  {times:5.1f}")
        if rows == more:
            ratios.append(times)
    print(f"ratio {max(ratios):.1f}")


if __name__ == "__main__":
    main()
