"""What is remembered of the database is what it would answer, for who is alone with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg2 import connect
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater

from repoman.database.answers import KEPT, MOST, Answers
from repoman.database.pool import Pool
from tests.database.conftest import running

STEPS = st.lists(st.sampled_from(["ask", "see", "answer", "begin", "change", "end", "wait"]))


def true(number: int) -> list[Any]:
    """What the database would answer; at first, that there is nothing."""
    return [(number,)] if number else []


@example(["ask", "see", "begin", "change", "end", "answer"])
@example(["begin", "ask", "see", "answer", "change", "end"])
@example(["ask", "see", "answer", "begin", "change", "end"])
@given(STEPS)
def test_whatever_overlaps_an_answer_is_never_older_than_the_last_write(steps: list[str]) -> None:
    clock, truth = Clock(), 0
    asked: list[list[Any]] = []
    writers: list[Any] = []
    answers = Answers(clock.seconds)
    for step in steps:
        if step == "ask":
            asked.append([answers.asking("?"), None])
        elif step == "see" and asked:
            asked[0][1] = truth
        elif step == "answer" and asked:
            keep, seen = asked.pop(0)
            keep(true(truth if seen is None else seen))
        elif step == "begin":
            writers.append(answers.writing())
            writers[-1].__enter__()
        elif step == "change" and writers:
            truth += 1
        elif step == "end" and writers:
            writers.pop(0).__exit__(None, None, None)
        elif step == "wait":
            clock.advance(KEPT / 3)
        assert answers.find("?") in (None, true(truth))
        assert not (writers and answers.find("?") is not None)


def test_that_there_is_nothing_is_kept_as_long_and_pushes_nothing_out() -> None:
    clock = Clock()
    answers = Answers(clock.seconds)
    answers.asking("there")([(1,)])
    for number in range(MOST + 1):
        answers.asking(number)([])
    assert answers.find(0) is None
    assert answers.find(MOST) == []
    assert answers.find("there") == [(1,)]
    clock.advance(KEPT)
    assert answers.find(MOST) is None
    answers.asking("new")([])
    with answers.writing():
        assert answers.find("new") is None


def test_nothing_is_kept_for_long_nor_without_end() -> None:
    clock = Clock()
    answers = Answers(clock.seconds)
    for number in range(MOST + 1):
        answers.asking(number)([(number,)])
    assert answers.find(0) is None
    keep = answers.asking("slow")
    clock.advance(KEPT / 2)
    keep([(1,)])
    assert answers.find("slow") == [(1,)]
    clock.advance(KEPT / 2)
    assert answers.find("slow") is None


@pytest.fixture
def lonely(dsn: str) -> Iterator[Pool]:
    with running(Pool(reactor, dsn, size=4, wait=1.0, is_alone=True)) as pool:
        yield pool


def change_from_outside(dsn: str) -> None:
    with connect(dsn) as other, other.cursor() as cursor:
        cursor.execute("UPDATE thing SET a = a + 10")
    other.close()


async def prepare(pool: Pool) -> None:
    await pool.interact(lambda t: t.run("CREATE TABLE thing (a int)"))
    await pool.interact(lambda t: t.run("INSERT INTO thing VALUES (1)"))


@pytest_twisted.ensureDeferred
async def test_who_is_alone_asks_once_until_something_is_written(lonely: Pool, dsn: str) -> None:
    await prepare(lonely)
    assert await lonely.ask("SELECT a FROM thing") == [(1,)]
    change_from_outside(dsn)
    assert await lonely.ask("SELECT a FROM thing") == [(1,)]
    await lonely.interact(lambda t: t.run("UPDATE thing SET a = a + 1"))
    assert await lonely.ask("SELECT a FROM thing") == [(12,)]
    change_from_outside(dsn)
    await deferLater(reactor, KEPT)
    assert await lonely.ask("SELECT a FROM thing") == [(22,)]


@pytest_twisted.ensureDeferred
async def test_who_is_not_alone_asks_each_time(pool: Pool, dsn: str) -> None:
    await prepare(pool)
    assert await pool.ask("SELECT a FROM thing") == [(1,)]
    change_from_outside(dsn)
    assert await pool.ask("SELECT a FROM thing") == [(11,)]
