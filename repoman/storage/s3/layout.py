"""Where a blob's bytes are in a bucket."""

from __future__ import annotations

import re

from attrs import frozen

from repoman.errors import StoreUnavailable

_KEY = re.compile(r"[0-9a-f]{32}")


@frozen
class Layout:
    """The keys under a prefix.

    ::

        <prefix>REPO_ID                         whose store this is
        <prefix>data/xx/<blob>                  blobs; in the making, a multipart upload to it
        <prefix>partial/<blob>/<begin>-<end>    bytes of a paused upload that fill no part yet
        <prefix>quarantine/<blob>               blobs that no record knew
    """

    prefix: str

    @property
    def id(self) -> str:
        """The object that says whose store this is."""
        return f"{self.prefix}REPO_ID"

    @property
    def data(self) -> str:
        """How the keys of all blobs begin."""
        return f"{self.prefix}data/"

    def blob(self, blob: str) -> str:
        """The object of a blob."""
        return f"{self.data}{_checked(blob)[:2]}/{blob}"

    def partial(self, blob: str) -> str:
        """How the keys of the bytes begin that fill no part."""
        return f"{self.prefix}partial/{_checked(blob)}/"

    def quarantine(self, blob: str) -> str:
        """Where a blob is put away."""
        return f"{self.prefix}quarantine/{_checked(blob)}"

    def blob_of(self, key: str) -> str | None:
        """The blob that an object is, if it is one."""
        blob = key.rpartition("/")[2]
        return blob if _KEY.fullmatch(blob) and key == self.blob(blob) else None


def _checked(blob: str) -> str:
    if not _KEY.fullmatch(blob):
        raise StoreUnavailable("That is not the key of a blob.")
    return blob
