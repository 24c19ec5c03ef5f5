"""An upload's digest is right, whether the digest so far was kept or not."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor

from repoman.body import Body
from repoman.model import Caller, Image
from repoman.records import ImageLimits
from repoman.repository.files import UploadLimits
from repoman.repository.images import FileRef, Images
from repoman.repository.uploads import Part, Uploads
from repoman.storage.memory import MemoryStore
from repoman.streams import Digesting
from tests.records import QUOTA, Records

reactor: Any = global_reactor


class Peer:
    """Has sent everything at once."""

    def pause_body(self) -> None:
        pass

    def resume_body(self, send_continue: bool) -> None:
        pass


def arriving(length: int) -> Body:
    """A body of which nothing is here yet."""
    return Body(Peer(), length, True)


def arrived(data: bytes) -> Body:
    """A body that is here."""
    body = arriving(len(data))
    body.received(data)
    body.finished()
    return body


def digesting(consumer: Any, limit: int, names: Any, start: int, previous: Any) -> Digesting:
    return Digesting(consumer, limit=limit, algorithms=names, start=start, previous=previous)


@pytest.mark.parametrize("remembered", [1000, 1, 0])
@pytest_twisted.ensureDeferred
async def test_of_many_unfinished_uploads_each_ends_with_its_own_digest(
    records: Records, monkeypatch: pytest.MonkeyPatch, remembered: int
) -> None:
    monkeypatch.setattr("repoman.repository.uploads.REMEMBERED", remembered)
    caller = Caller(await records.user("alice"))
    images = Images(records.images, QUOTA, lambda: None, ImageLimits(9, 9, 9))
    limits = UploadLimits(QUOTA, QUOTA, 10, 60.0)
    store = MemoryStore(reactor)
    uploads = Uploads(images, records.blobs, store, digesting, limits, lambda: None)
    begun = {}
    for name in ("one", "two", "three"):
        await records.image("alice", name)
        begun[name] = await uploads.create(caller, FileRef(name), None)
    for upload in begun.values():
        start = Part(0, last=False, length=None, expected={})
        await uploads.append(caller, upload.id, start, arrived(b"this is "))
        assert len(uploads._digesting) <= remembered
    for name, upload in begun.items():
        end = Part(8, last=True, length=None, expected={})
        image = await uploads.append(caller, upload.id, end, arrived(name.encode()))
        assert isinstance(image, Image)
        whole = hashlib.sha256(b"this is " + name.encode()).hexdigest()
        assert image.files["xen"].digests.sha256 == whole
    assert not uploads._digesting
