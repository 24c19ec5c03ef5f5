"""twistd, beside it a book of what each request costs.

A line of JSON for each answered request: its path, how many statements and transactions it had of
the database, and for how long the process ran meanwhile, in seconds.  Right for one request at a
time on a daemon that has nothing else to do.

Run as a program, with twistd's own arguments; ``COST_FILE`` names the file.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any


class Book:
    """Counts, and writes a line at each end."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._questions = 0

    def count_questions(self, pool: Any) -> None:
        """Count the calls of ``pool``'s methods that ask the database."""
        for name in ("ask", "query", "interact"):
            setattr(pool, name, self._counted(getattr(pool, name)))

    def _counted(self, method: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._questions += 1
            return method(*args, **kwargs)

        return counted

    def watch_requests(self, request_class: Any) -> None:
        """Write a line for each request of this class."""
        dispatch, finish, book = request_class.dispatch, request_class.finish, self

        def dispatched(request: Any) -> None:
            book._questions, request.ran = 0, time.process_time()
            dispatch(request)

        def finished(request: Any) -> None:
            finish(request)
            book._note(request.uri, time.process_time() - request.ran)

        request_class.dispatch, request_class.finish = dispatched, finished

    def _note(self, uri: bytes, seconds: float) -> None:
        line = {"uri": uri.decode(), "questions": self._questions, "seconds": seconds}
        os.write(self._file, json.dumps(line).encode() + b"\n")


def main() -> None:
    """Run twistd, with the book."""
    from twisted.scripts.twistd import run

    from repoman.database.pool import Pool
    from repoman.request import Request

    book = Book(os.environ["COST_FILE"])
    book.count_questions(Pool)
    book.watch_requests(Request)
    run()


if __name__ == "__main__":
    main()
