"""Several daemons on one repository: one does the chores, and each knows of the others' work."""

from __future__ import annotations

from typing import Any

import pytest_twisted
from attrs import evolve
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import ensureDeferred
from twisted.logger import LogEvent, globalLogPublisher

from repoman.background import Background
from repoman.chores import Chores
from repoman.database.daemons import Daemons
from repoman.election import TERM, Election
from repoman.errors import QuotaExceeded
from repoman.model import Caller
from repoman.repository.images import FileRef
from repoman.transfers import Transfer
from tests.records import Records, at_once
from tests.repository.test_digests_so_far import arriving
from tests.repository.test_two_processes import outcome, soon, two

reactor: Any = global_reactor

RUNNING = Transfer("4f", "alice", "/CN=a", "::1", "upload", "/api/images/raw/one", 5, 9, 2.0, 1.5)


def daemons(records: Records, *names: str) -> list[Daemons]:
    return [Daemons(records.pool, name, name) for name in names]


async def the_elected_has_died(records: Records) -> None:
    await records.run("UPDATE chores SET held_until = now() - interval '1 s'")


@pytest_twisted.ensureDeferred
async def test_one_of_many_is_elected_and_another_when_it_has_died(records: Records) -> None:
    several = daemons(records, "one", "two", "three")
    votes = await at_once(*(daemon.elect(TERM) for daemon in several))
    assert sorted(map(repr, votes)) == ["False", "None", "None"]
    elected = several[votes.index(False)]
    assert await elected.elect(TERM) is False
    await the_elected_has_died(records)
    others = [daemon for daemon in several if daemon is not elected]
    votes = await at_once(*(daemon.elect(TERM) for daemon in others))
    assert sorted(map(repr, votes)) == ["False", "None"]
    assert await elected.elect(TERM) is None


@pytest_twisted.ensureDeferred
async def test_who_resigns_is_followed_at_once(records: Records) -> None:
    one, two = daemons(records, "one", "two")
    assert await one.elect(TERM) is False
    assert await two.elect(TERM) is None
    await one.resign()
    assert await two.elect(TERM) is False


@pytest_twisted.ensureDeferred
async def test_a_sweep_that_another_daemon_asks_for_is_told_to_the_elected_once(
    records: Records,
) -> None:
    one, two = daemons(records, "one", "two")
    await one.elect(TERM)
    await two.ask_for_sweep()
    assert await two.elect(TERM) is None
    assert await one.elect(TERM) is True
    assert await one.elect(TERM) is False


@pytest_twisted.ensureDeferred
async def test_chores_begin_with_the_election_and_end_when_it_cannot_be_renewed(
    records: Records,
) -> None:
    one, two = daemons(records, "one", "two")
    said: list[str] = []
    logged: list[LogEvent] = []
    globalLogPublisher.addObserver(logged.append)
    time = 100.0
    election = Election(
        one, lambda: time, lambda: said.append("begin"), lambda: said.append("end"),
        lambda: said.append("sweep"),
    )  # fmt: skip
    await election.hold()
    await two.ask_for_sweep()
    await election.hold()
    time += TERM - 1
    election.look()
    assert said == ["begin", "sweep"]
    time += 1
    election.look()
    assert said == ["begin", "sweep", "end"]
    assert not election.is_won
    await election.hold()
    await the_elected_has_died(records)
    await two.elect(TERM)
    await election.hold()
    assert said[3:] == ["begin", "end"]
    told = [entry["log_format"] for entry in logged if "chores" in entry["log_format"]]
    begun = "This daemon does the chores of the repository from now on"
    ended = "Another daemon may do the chores of the repository from now on"
    assert told == [begun, ended] * 2
    globalLogPublisher.removeObserver(logged.append)


@pytest_twisted.ensureDeferred
async def test_of_two_daemons_one_sweeps_also_what_the_other_discards(records: Records) -> None:
    assemblies = two(records)
    background = Background(reactor)
    first = Chores(background, assemblies[0], reactor.seconds)
    while await records.run("SELECT 1 FROM chores WHERE held_until > now()") == []:
        await soon()
    second = Chores(background, assemblies[1], reactor.seconds)
    await soon(0.3)
    user = await records.user("alice")
    blob = await records.begin(await records.image("alice", "one"), user, 5)
    await records.blobs.release(blob)
    second.sweep_soon()
    await soon(0.3)
    assert assemblies[1].sweeper.removed == 0
    assert await records.blobs.state(blob) == "deleting"
    assert first._election is not None
    await first._election.hold()  # which it does every few seconds
    while assemblies[0].sweeper.removed == 0:
        await soon()
    assert assemblies[0].sweeper.removed == 1
    assert await records.blobs.state(blob) is None
    assert assemblies[1].sweeper.removed == 0
    background.stop()


@pytest_twisted.ensureDeferred
async def test_who_is_elected_after_an_absence_of_the_database_waits_for_others_to_renew(
    records: Records,
) -> None:
    user = await records.user("alice")
    for name in ("running", "dead"):
        await records.begin(await records.image("alice", name), user, 5)
    await records.run("UPDATE blob SET lease = now() - interval '1 s'")
    [elected] = daemons(records, "one")
    await elected.elect(TERM)
    assert await records.blobs.expire_leases() == 0
    await elected.elect(TERM)
    await records.run("UPDATE chores SET since = since - interval '61 s'")
    await elected.elect(TERM)
    assert await records.blobs.expire_leases() == 2


@pytest_twisted.ensureDeferred
async def test_of_several_daemons_that_start_at_once_one_makes_the_administrator(
    records: Records,
) -> None:
    made = await at_once(
        *(records.accounts.ensure_admin("roger", "r@example.org", "/CN=R") for _ in range(4))
    )
    assert sorted(made) == ["created", *["known before"] * 3]


@pytest_twisted.ensureDeferred
async def test_each_daemon_tells_of_the_transfers_of_the_others(records: Records) -> None:
    one, two = daemons(records, "one", "two")
    await one.tell([RUNNING])
    assert await one.elsewhere() == []
    await two.tell([])
    for _ in range(2):  # first it hears that there is somebody to tell
        await one.tell([RUNNING])
    [found] = await two.elsewhere()
    assert evolve(found, seconds=RUNNING.seconds, daemon="") == RUNNING
    assert found.daemon == "one"
    assert 2.0 <= found.seconds < 7.0
    await two.tell([evolve(RUNNING, user="bob")])
    assert [each.user for each in await one.elsewhere()] == ["bob"]


@pytest_twisted.ensureDeferred
async def test_what_a_dead_daemon_told_is_forgotten(records: Records) -> None:
    one, two = daemons(records, "one", "two")
    for _ in range(3):
        for daemon in (one, two):
            await daemon.tell([RUNNING])
    assert len(await two.elsewhere()) == 1
    await records.run("UPDATE daemon SET moment = now() - interval '11 s' WHERE holder = 'one'")
    assert await two.elsewhere() == []
    await two.tell([])
    assert await records.run("SELECT holder FROM daemon") == [("two",)]


@pytest_twisted.ensureDeferred
async def test_40_uploads_at_once_through_two_daemons_into_room_for_10_admit_10(
    records: Records,
) -> None:
    caller = Caller(await records.user("alice", quota=1000))
    both = two(records)
    for assembly in both:
        assembly.bounds.uploads = 100
    refs = [FileRef(f"image{number}") for number in range(40)]
    for ref in refs:
        await records.image("alice", ref.name)
    bodies = [arriving(100) for _ in refs]
    uploads = [
        ensureDeferred(outcome(
            both[n % 2].repository.files.store(caller, ref, body, True, {})))
        for n, (ref, body) in enumerate(zip(refs, bodies, strict=True))
    ]  # fmt: skip
    while sum(upload.called for upload in uploads) < 30:
        await soon()
    await soon(0.2)
    refused = [await upload for upload in uploads if upload.called]
    assert [type(each) for each in refused] == [QuotaExceeded] * 30
    for body in bodies:
        body.interrupt()
    for upload in uploads:
        await upload
