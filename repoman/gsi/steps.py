"""Long work in short steps, so that one process can do other things in between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Work that pauses at each ``yield`` and answers at its end."""


def finish(steps: Steps[T]) -> T:
    """Take all steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            answer: T = end.value
            return answer


async def finish_gently(steps: Steps[T], pause: Callable[[], Awaitable[object]]) -> T:
    """Take one step at a time, with a pause after each."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            answer: T = end.value
            return answer
        await pause()
