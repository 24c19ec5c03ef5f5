"""The scrubber: a file that cannot be read just now keeps no other from its turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor

from repoman.errors import StoreUnavailable
from repoman.interfaces import Committed
from repoman.model import Digests
from repoman.repository.scrubber import Scrubber
from repoman.storage.directory import DirectoryStore
from repoman.streams import digests
from tests.records import QUOTA, Records, wait_for

reactor: Any = global_reactor
CONTENT = b"bytes"


@pytest.fixture
def store(tmp_path: Path) -> Any:
    root = tmp_path / "blobs"
    root.mkdir()
    made = DirectoryStore(reactor, root, repository_id="this")
    wait_for(made.start())
    yield made
    wait_for(made.stop())


async def stored(records: Records, store: DirectoryStore, count: int) -> list[str]:
    """Files of a user's, the first to be read first."""
    alice = await records.user("alice")
    blobs = []
    for number in range(count):
        image = await records.image("alice", f"image{number}")
        blobs.append(blob := await records.begin(image, alice, len(CONTENT)))
        writer = await store.create(blob, len(CONTENT))
        writer.write(CONTENT)
        found = Digests(digests(CONTENT, ["sha256"])["sha256"])
        committed = Committed(len(CONTENT), found, await writer.commit())
        await records.blobs.finish(blob, committed, QUOTA)
    return blobs


def spoil(root: Path, blob: str) -> None:
    """Let its opening fail, but not as that of a missing one: the name leads in a circle."""
    file = root / "data" / blob[:2] / blob
    file.unlink()
    file.symlink_to(file)


def mend(root: Path, blob: str) -> None:
    file = root / "data" / blob[:2] / blob
    file.unlink()
    file.write_bytes(CONTENT)


@pytest_twisted.ensureDeferred
async def test_one_that_cannot_be_opened_is_passed_over_and_has_its_turn_later(
    records: Records, store: DirectoryStore, tmp_path: Path
) -> None:
    root, blobs = tmp_path / "blobs", await stored(records, store, 3)
    for number, blob in enumerate(blobs):  # in this order
        await records.run(
            "UPDATE blob SET scrubbed = now() - (90 - %s) * interval '1 d' WHERE blob = %s",
            number,
            blob,
        )
    spoil(root, blobs[0])
    scrubber = Scrubber(records.blobs, store)
    assert await scrubber.scrub() == 0
    assert scrubber.unread == blobs[:1]
    due = "SELECT blob FROM blob WHERE scrubbed < now() - interval '30 d'"
    assert await records.run(due) == [(blobs[0],)]
    assert await records.blobs.damaged() == []
    mend(root, blobs[0])
    assert await scrubber.scrub() == 0
    assert scrubber.unread == await records.run(due) == []


@pytest_twisted.ensureDeferred
async def test_where_too_many_cannot_be_read_the_run_ends(
    records: Records, store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repoman.repository.scrubber.UNREAD", 2)
    for blob in await stored(records, store, 3):
        spoil(tmp_path / "blobs", blob)
    with pytest.raises(StoreUnavailable):
        await Scrubber(records.blobs, store).scrub()


@pytest_twisted.ensureDeferred
async def test_one_that_cannot_be_opened_keeps_no_other_from_being_found_whole_again(
    records: Records, store: DirectoryStore, tmp_path: Path
) -> None:
    blobs = await stored(records, store, 3)
    await records.blobs.mark_damaged(blobs)
    [first, *others] = [due.blob for due in await records.blobs.damaged()]
    spoil(tmp_path / "blobs", first)
    assert await Scrubber(records.blobs, store).heal() == len(others)
    assert [due.blob for due in await records.blobs.damaged()] == [first]
