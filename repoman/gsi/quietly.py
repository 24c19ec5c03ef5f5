"""Reading certificates without the warnings of the library.

It warns of what it will refuse one day, as serial numbers of 0, and of what
is merely long.  That is for programmers; ten authorities of the IGTF have it,
and whether a warning raises is up to the environment (``PYTHONWARNINGS``).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quietly() -> Iterator[None]:
    """Nothing that is done meanwhile warns.  Decorates a function, too; no generator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
