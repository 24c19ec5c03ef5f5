"""What the log says of the object store's troubles: everything that the client is not told."""

from __future__ import annotations

import pytest
import pytest_twisted
from test_what_is_told import told
from unreliable import Fault, answer
from unreliable_place import PART, Place

from repoman.errors import BlobDamaged, StoreUnavailable
from repoman.interfaces import new_key
from repoman.storage.s3.arriving import Arriving


@pytest_twisted.ensureDeferred
async def test_what_is_wrong_with_objects_is_told(place: Place) -> None:
    with told() as lines, pytest.raises(BlobDamaged):
        await place.store.open(key := new_key(), 3)
    assert lines == [f"blob {key} is damaged: is not there"]
    place.proxy.faults.append(Fault("HEAD", answer=answer(403, "AccessDenied")))
    with told() as lines, pytest.raises(StoreUnavailable) as caught:
        await place.store.open(key, 3)
    assert lines == ["object store: HEAD was answered 403 -: see [storage] in the configuration"]
    assert "AccessDenied" not in str(caught.value)


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_removed_is_told_and_left(place: Place) -> None:
    writer = await place.store.create(key := new_key(), 3)
    place.proxy.faults.append(Fault("DELETE", times=9, answer=answer(403, "AccessDenied")))
    with told() as lines:
        await writer.discard()
    assert lines[-1].startswith(f"blob {key} left to the sweeper: ")


@pytest_twisted.ensureDeferred
async def test_a_fault_of_ours_while_sending_is_told_with_a_traceback(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    writer = await place.store.create(key := new_key(), None)
    monkeypatch.setattr(Arriving, "send", broken)
    with told() as lines:
        writer.write(bytes(PART))
    assert f"blob {key} was not sent" in lines[0]
    with pytest.raises(StoreUnavailable):
        await writer.commit()
