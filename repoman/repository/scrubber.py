"""Reads stored bytes again: for the digests that uploads do not wait for, and for damage."""

from __future__ import annotations

from contextlib import suppress

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from repoman.errors import BlobDamaged, StoreUnavailable
from repoman.interfaces import IBlobRecords, IBlobStore, ScrubDue
from repoman.model import Digests, ImageFile

ALGORITHMS = ("adler32", "md5", "sha256", "sha512")
"""The digests that every file has in the end."""

RATE = 50 * 2**20
"""Bytes per second of a second reading; the first, soon after the upload, is not held back."""

AGAIN_AFTER = 30 * 86400.0
"""Seconds after which a file is read again."""

UNREAD = 100
"""So many files that cannot be read are the store's fault, not theirs."""

_log = Logger()


class Scrubber:
    """Works through the store, one file at a time; the database remembers how far.

    :ivar unread: the blobs that the last run could not read, and passed over.
    """

    def __init__(self, records: IBlobRecords, store: IBlobStore) -> None:
        self._records = records
        self._store = store
        self.unread: list[str] = []
        self._busy = False

    async def scrub(self, *, everything: IReactorTime | None = None) -> int:
        """Read all files whose turn it is; answer how many turned out to be damaged.

        :param everything: it is every file's turn; the clock tells which one had it.
        :raises StoreUnavailable: too many in one run could not be read.
        """
        if self._busy:
            return 0
        self._busy, self.unread = True, []
        damaged, began = 0, everything.seconds() if everything else 0.0
        try:
            while True:
                age = everything.seconds() - began if everything else AGAIN_AFTER
                due = await self._records.due_for_scrub(age, self.unread)
                if due is None:
                    break
                try:
                    if not await self._is_right(due):
                        damaged += await self._records.mark_damaged([due.blob])
                except StoreUnavailable:
                    self.unread.append(due.blob)
                    if len(self.unread) == UNREAD:
                        raise
        finally:
            self._busy = False
        return damaged

    async def heal(self) -> int:
        """Look at the damaged ones again: somebody may have restored them; answer how many had."""
        healed = 0
        for due in await self._records.damaged():
            with suppress(StoreUnavailable):  # it stays noted, and is looked at again
                healed += await self._is_right(due)
        return healed

    async def _is_right(self, due: ScrubDue) -> bool:
        rate = None if due.new else RATE
        try:
            reader = await self._store.open(due.blob, due.size)
            reader.close()
            found = await self._store.digests(due.blob, *ALGORITHMS, rate=rate)
        except BlobDamaged:
            return False
        if found["sha256"] == due.sha256:
            await self._records.scrubbed(due.blob, Digests(**found), reader.stamp)
        return found["sha256"] == due.sha256


class Verifier:
    """Bytes that somebody may have touched behind our back are read again before they are served.

    Touched is not wrong: whoever restores a backup touches every file.  So
    nothing is refused that is what was stored, it only comes later.
    """

    def __init__(self, records: IBlobRecords, store: IBlobStore) -> None:
        self._records = records
        self._store = store
        self._waiting: dict[str, list[Deferred[Exception | None]]] = {}

    async def verify(self, stored: ImageFile, stamp: str) -> None:
        """Make sure that a file's bytes under this stamp are what was stored.

        :raises BlobDamaged: they are not, which is noted; or the file is no more.
        """
        key = stored.blob
        known = await self._records.stamp(key)
        if known is None:
            raise BlobDamaged("The file was replaced or deleted a moment ago.")
        if known == stamp:
            return
        if await self._records.is_copy(key, stamp):  # the store is another than before
            await self._records.restamp(key, stamp)
            return
        if key in self._waiting:  # once for all who ask at the same time
            answer: Deferred[Exception | None] = Deferred()
            self._waiting[key].append(answer)
            wrong = await answer
        else:
            self._waiting[key] = []
            wrong = await self._what_is_wrong(stored, stamp)
            for answer in self._waiting.pop(key):
                answer.callback(wrong)
        if wrong is not None:
            raise wrong

    async def _what_is_wrong(self, stored: ImageFile, stamp: str) -> Exception | None:
        _log.warn("blob {key} was touched or restored: reading it again", key=stored.blob)
        try:
            found = await self._store.digests(stored.blob, "sha256")
            if found["sha256"] != stored.digests.sha256:
                await self._records.mark_damaged([stored.blob])
                _log.critical("blob {key} is not what was stored", key=stored.blob)
                return BlobDamaged("The stored file is damaged; tell the administrator.")
            await self._records.restamp(stored.blob, stamp)
        except Exception as error:  # whatever it is, it is for everybody who waits
            return error
        return None
