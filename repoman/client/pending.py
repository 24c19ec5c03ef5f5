"""What is remembered of an unfinished upload, so that the next run can go on with it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from repoman.atomic_files import has_name, open_locked
from repoman.errors import Conflict


class Pending:
    """The unfinished upload to one URL, in a small file that is locked while it goes on.

    Where no file can be kept, nothing is remembered, and the upload works all the same.
    """

    def __init__(self, directory: Path | None, url: str) -> None:
        """Look what there is.

        :param directory: of all these files; ``None``: remember nothing.
        :param url: the raw URL to which the upload goes.
        :raises Conflict: another process is uploading to there.
        """
        self._file = -1
        if directory is None:
            return
        self._path = directory / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = open_locked(self._path, 0o600)
        except BlockingIOError as error:
            raise Conflict(f"Another upload to {url} is running.") from error
        except OSError:
            return

    def recall(self) -> tuple[str, str]:
        """The identity of the file that was being sent, and the upload's path; or both empty."""
        if self._file < 0:
            return "", ""
        try:
            known = json.loads(os.pread(self._file, 4096, 0))
            return str(known["file"]), str(known["upload"])
        except (ValueError, KeyError, TypeError):  # empty, or torn by a sudden end
            return "", ""

    def remember(self, identity: str, place: str) -> None:
        """Note what begins now."""
        if self._file < 0 or not identity:
            return
        text = json.dumps({"file": identity, "upload": place}).encode()
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, text, 0)
        except OSError:  # no room for it: see above
            return

    def forget(self) -> None:
        """It is over."""
        if self._file >= 0:
            os.ftruncate(self._file, 0)

    def close(self) -> None:
        """Let the next run have it."""
        if self._file < 0:
            return
        if os.fstat(self._file).st_size == 0 and has_name(self._file, self._path):
            self._path.unlink()
        os.close(self._file)
        self._file = -1
