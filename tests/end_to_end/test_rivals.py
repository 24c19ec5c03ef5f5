"""Many at once, over the same room or the same image; and bytes that rot."""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end.conftest import MIB
from tests.ledger import Board, LateDaemon, Ledger, frozen, helper_of, sha256, wait_for
from tests.server import Answer, Person


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LateDaemon]:
    """A daemon whose store these tests look into."""
    with LateDaemon(tmp_path_factory.mktemp("rivals"), limits={"uploads": 100}).running() as daemon:
        yield daemon


@pytest.fixture
def alice(own: LateDaemon) -> Person:
    person = own.newcomer()
    person.ask("POST", "/api/images", form={"name": "one"})
    return person


def at_once(calls: list[Callable[[], Answer]]) -> list[Answer]:
    """Make calls at the same time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(insist, calls))


def insist(call: Callable[[], Answer]) -> Answer:
    """Ask again while the server is too busy."""
    while (answer := call()).status == 503:
        time.sleep(0.1)
    return answer


def another(person: Person) -> Person:
    """The same person on a connection of their own."""
    return person.daemon._remember(Person(person.daemon, person.name, person.dn, person.proxy))


def deadlocks(daemon: LateDaemon) -> int:
    """How many PostgreSQL has had to resolve, each after a second of waiting."""
    said = (daemon.directory / "state" / "log" / "postgresql.log").read_text()
    return said.count("deadlock detected")


def test_of_40_reservations_into_room_for_10_exactly_10_are_admitted(
    own: LateDaemon, board: Board
) -> None:
    person, ledger = own.newcomer(), Ledger(own)
    own.admin.ask("POST", f"/api/users/{person.name}", form={"quota": 10 * MIB})
    for number in range(40):
        person.ask("POST", "/api/images", form={"name": f"i{number}"})
    rivals = [another(person) for _ in range(40)]

    headers = {"Upload-Complete": "?0", "Upload-Length": str(MIB)}
    calls = [
        partial(rival.ask, "POST", f"/api/images/raw/i{number}", headers=headers)
        for number, rival in enumerate(rivals)
    ]
    with ledger.fault() as figures:
        answers = at_once(calls)
    assert sorted(answer.status for answer in answers) == [201] * 10 + [413] * 30
    ledger.check()
    board(ledger, figures)


def test_of_40_uploads_in_one_piece_too(own: LateDaemon, board: Board) -> None:
    person, ledger = own.newcomer(), Ledger(own)
    own.admin.ask("POST", f"/api/users/{person.name}", form={"quota": 10 * MIB})
    for number in range(40):
        person.ask("POST", "/api/images", form={"name": f"i{number}"})
    rivals = [another(person) for _ in range(40)]
    content, before = os.urandom(MIB), deadlocks(own)
    calls = [
        partial(rival.ask, "PUT", f"/api/images/raw/i{number}", body=content)
        for number, rival in enumerate(rivals)
    ]
    answers = at_once(calls)
    assert sorted(answer.status for answer in answers) == [200] * 10 + [413] * 30
    assert deadlocks(own) == before
    ledger.check()
    board(ledger)


def test_of_two_puts_of_one_image_one_is_served_whole(
    own: LateDaemon, alice: Person, board: Board
) -> None:
    ledger, target, before = Ledger(own), "/api/images/raw/one", deadlocks(own)
    for _ in range(5):
        contents = [os.urandom(3 * MIB), os.urandom(2 * MIB)]
        calls = [partial(another(alice).ask, "PUT", target, body=c) for c in contents]
        assert [answer.status for answer in at_once(calls)] == [200, 200]
        assert alice.ask("GET", "/api/images/raw/one").body in contents
    assert deadlocks(own) == before
    ledger.check()
    board(ledger)


def test_a_put_against_delete_and_rename_ends_as_one_or_the_other(
    own: LateDaemon, alice: Person, board: Board
) -> None:
    ledger = Ledger(own)
    for number in range(10):
        name, new = f"r{number}", f"s{number}"
        alice.ask("POST", "/api/images", form={"name": name})
        content = os.urandom(MIB)
        method, form = ("DELETE", None) if number % 2 else ("POST", {"name": new})
        put, other = at_once(
            [
                partial(another(alice).ask, "PUT", f"/api/images/raw/{name}", body=content),
                partial(another(alice).ask, method, f"/api/images/{name}", form=form),
            ]
        )
        assert other.status == 200
        assert put.status in (200, 404, 409), put
        if method == "DELETE":
            assert alice.ask("GET", f"/api/images/raw/{name}").status == 404
        elif put.status == 200:
            assert alice.ask("GET", f"/api/images/raw/{new}").body == content
    ledger.check()
    board(ledger)


def test_a_put_against_the_acceptance_of_the_image_ends_as_one_or_the_other(
    own: LateDaemon, alice: Person, board: Board
) -> None:
    ledger, bob, before = Ledger(own), own.newcomer(), deadlocks(own)
    for number in range(8):
        name, content = f"g{number}", os.urandom(MIB)
        alice.ask("POST", "/api/images", form={"name": name})
        alice.ask("POST", f"/api/images/{name}", form={"owner": bob.name})
        put, accepted = at_once(
            [
                partial(another(alice).ask, "PUT", f"/api/images/raw/{name}", body=content),
                partial(another(bob).ask, "POST", f"/api/offers/{alice.name}/{name}"),
            ]
        )
        assert accepted.status == 200
        assert put.status in (200, 404, 409), put
        stored = bob.ask("GET", f"/api/images/raw/{name}")
        assert (stored.body == content) == (put.status == 200)
    assert deadlocks(own) == before
    ledger.check()
    board(ledger)


def test_an_image_deleted_while_it_is_downloaded_is_downloaded_to_its_end(
    own: LateDaemon, alice: Person, board: Board
) -> None:
    ledger, content = Ledger(own), os.urandom(64 * MIB)
    alice.ask("PUT", "/api/images/raw/one", body=content)
    connection = alice.connection()
    connection.request("GET", "/api/images/raw/one")
    response = connection.getresponse()
    got = response.read(MIB)
    with ledger.fault() as figures:
        assert another(alice).ask("DELETE", "/api/images/one").status == 200
        ledger.check_store()
        assert got + response.read() == content
    connection.close()
    ledger.check()
    board(ledger, figures)


def blob_of(daemon: LateDaemon, content: bytes) -> Path:
    """The file that holds these bytes."""
    [[key]] = Ledger(daemon).query(
        f"SELECT blob FROM blob WHERE sha256 = '{sha256(content)}' AND state <> 'deleting'"
    )
    return daemon.directory / "state/blobs/data" / key[:2] / key


def flip_a_bit(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(bytes(path.stat().st_size))
    other.rename(path)


@pytest.mark.directory_store
@pytest.mark.parametrize("harm", [flip_a_bit, shorten, replace, Path.unlink])
def test_bytes_changed_behind_our_back_are_never_served_as_right(
    own: LateDaemon, alice: Person, board: Board, harm: Callable[[Path], None]
) -> None:
    content = os.urandom(3 * MIB)
    ledger = Ledger(own)
    alice.ask("PUT", "/api/images/raw/one", body=content)
    assert alice.ask("GET", "/api/images/raw/one").body == content
    path = blob_of(own, content)
    harm(path)
    answer = alice.ask("GET", "/api/images/raw/one")
    ledger.wrong += answer.status == 200 and answer.body != content
    assert answer.status == 500
    assert alice.ask("GET", "/api/images/raw/one", headers={"Range": "bytes=0-9"}).status == 500
    # Nothing is deleted by itself, and a new upload makes it good.
    assert path.exists() or harm is Path.unlink
    again = os.urandom(MIB)
    assert ledger.put(alice, "one", again) == 200
    ledger.check()
    board(ledger)


@pytest.mark.directory_store
def test_a_restored_file_is_read_once_and_served(own: LateDaemon, alice: Person) -> None:
    content = os.urandom(3 * MIB)
    alice.ask("PUT", "/api/images/raw/one", body=content)
    path = blob_of(own, content)
    saved = path.with_name("saved")
    subprocess.run(["cp", "--archive", path, saved], check=True)
    path.unlink()
    saved.rename(path)
    told = f"blob {path.name} was touched or restored"
    rivals = [another(alice) for _ in range(5)]
    calls = [partial(rival.ask, "GET", "/api/images/raw/one") for rival in rivals]
    for _ in range(2):
        assert [answer.body == content for answer in at_once(calls)] == [True] * 5
    assert own.log.read_text().count(told) == 1


@pytest.mark.directory_store
def test_a_damaged_image_heals_when_its_file_comes_back(tmp_path: Path) -> None:
    content = os.urandom(MIB)
    with LateDaemon(tmp_path).running() as daemon:
        daemon.admin.ask("POST", "/api/images", form={"name": "one"})
        daemon.admin.ask("PUT", "/api/images/raw/one", body=content)
        path = blob_of(daemon, content)
        path.rename(saved := tmp_path / "saved")
        daemon.stop()
        daemon.start()
        ledger = Ledger(daemon)
        wait_for(lambda: ledger.query("SELECT 1 FROM blob WHERE state = 'damaged'"), 10)
        assert daemon.admin.ask("GET", "/api/images/raw/one").status == 500
        daemon.stop()
        saved.rename(path)
        daemon.start()
        wait_for(lambda: ledger.query("SELECT 1 FROM blob WHERE state = 'present'"), 10)
        assert daemon.admin.ask("GET", "/api/images/raw/one").body == content
        ledger.check()


@pytest.mark.directory_store
def test_a_slow_helper_stalls_nobody_but_the_upload_that_waits_for_it(
    own: LateDaemon, alice: Person, board: Board
) -> None:
    ledger = Ledger(own)
    with ThreadPoolExecutor() as pool, ledger.fault() as figures:
        with frozen(helper_of(own)):
            waiting = pool.submit(ledger.put, alice, "one", os.urandom(MIB))
            time.sleep(1)
            other = own.newcomer()
            assert other.ask("GET", "/api/whoami").status == 200
            assert not waiting.done()
        assert waiting.result() == 200
    ledger.check()
    assert figures.stall < 100
    board(ledger, figures)


def test_a_download_that_meets_a_replacement_gets_one_file_or_the_other(own: LateDaemon) -> None:
    owner, over = own.newcomer(), threading.Event()
    reader = own.person(f"Person {owner.name}", owner.name)
    owner.ask("POST", "/api/images", form={"name": "moving"})
    owner.ask("PUT", "/api/images/raw/moving", body=b"0" * 100)

    def replace() -> None:
        for number in itertools.count(1):
            if over.is_set():
                return
            owner.ask("PUT", "/api/images/raw/moving", body=str(number % 10).encode() * 100)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        answers = [reader.ask("GET", "/api/images/raw/moving") for _ in range(600)]
    finally:
        over.set()
        thread.join()
    assert {answer.status for answer in answers} == {200}
    assert all(len(answer.body) == 100 and len(set(answer.body)) == 1 for answer in answers)


def test_images_with_a_word_of_their_own_come_and_go_side_by_side(
    own: LateDaemon, alice: Person
) -> None:
    owners = [alice, own.newcomer()] * 3
    before = deadlocks(own)

    def come_and_go(number: int, person: Person) -> Iterator[Answer]:
        for turn in range(5):
            name = f"image{number}-{turn}"
            form = {"name": name, "hypervisor": "their-own"}
            yield person.ask("POST", "/api/images", form=form)
            yield person.ask("DELETE", f"/api/images/{name}")

    with ThreadPoolExecutor(len(owners)) as pool:
        lives = [come_and_go(number, another(person)) for number, person in enumerate(owners)]
        answers = list(itertools.chain.from_iterable(pool.map(list, lives)))
    assert {answer.status for answer in answers} == {200, 201}
    assert deadlocks(own) == before
