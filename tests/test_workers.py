"""Several workers behind one port: nobody is refused, whoever ends, and it looks like one."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.server import ROOT, Daemon, Person, ask_plain, free_ports
from tests.test_monitoring import number
from tests.test_start_failures import left_behind, start
from tests.test_supervised import Told, activated, soon
from tests.test_supervised import listening as listening

MIB = 1 << 20


class Shop(Daemon):
    """A daemon of two workers."""

    def __init__(self, directory: Path, **settings: dict[str, object]) -> None:
        [self.monitoring] = free_ports(1)
        settings.setdefault("server", {}).setdefault("workers", 2)
        endpoint = f"tcp:{self.monitoring}:interface=127.0.0.1"
        settings.setdefault("metrics", {"endpoint": endpoint})
        super().__init__(directory, **settings)

    @property
    def foreman(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    def _wait_until_serving(self) -> None:
        super()._wait_until_serving()
        soon(lambda: self.serving() == 2)

    def workers(self) -> list[int]:
        """The process ids of all that live."""
        children = Path(f"/proc/{self.foreman}/task/{self.foreman}/children").read_text().split()
        return [int(child) for child in children if b"--logger=" in command_of(child)]

    def metrics(self) -> str:
        return ask_plain(f"http://127.0.0.1:{self.monitoring}/metrics").text

    def serving(self) -> float:
        """How many workers serve."""
        return number(self.metrics(), "repoman_workers")

    def is_ready(self) -> bool:
        return ask_plain(f"http://127.0.0.1:{self.monitoring}/readyz").status == 200

    def hang_up_all(self) -> None:
        for person in self._people:
            person.hang_up()

    def wait_for_other_workers(self, old: list[int]) -> list[int]:
        """Wait until two serve that are none of ``old``."""
        soon(lambda: len(set(self.workers()) - set(old)) == 2 and self.serving() == 2)
        return [pid for pid in self.workers() if pid not in old]


def command_of(pid: object) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def worker_of(shop: Shop, connection: socket.socket) -> int:
    """The worker that has accepted a connection."""
    ours, theirs = connection.getsockname()[1], connection.getpeername()[1]
    wanted = f":{theirs:04X} 0100007F:{ours:04X} "
    inode = ""

    def accepted() -> bool:
        nonlocal inode
        lines = Path("/proc/net/tcp").read_text().splitlines()
        found = [line.split()[9] for line in lines if wanted in line]
        inode = found[0] if found else "0"
        return inode != "0"

    soon(accepted)
    for pid in shop.workers():
        if any(holds(link, inode) for link in Path(f"/proc/{pid}/fd").iterdir()):
            return pid
    raise AssertionError("no worker has it")


def holds(link: Path, inode: str) -> bool:
    try:
        return os.readlink(link) == f"socket:[{inode}]"
    except OSError:
        return False


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One for the tests that leave both its workers alive."""
    log = {"format": "json"}
    with Shop(tmp_path_factory.mktemp("shop"), log=log).running() as shop:
        yield shop


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Shop]:
    with Shop(tmp_path).running() as shop:
        yield shop


def on_each(shop: Shop, person: Person) -> dict[int, Person]:
    """The same person, connected to each worker."""
    found: dict[int, Person] = {}
    while len(found) < 2:
        again = Person(shop, person.name, person.dn, person.proxy, person.credential)
        shop._people.append(again)
        again.ask("GET", "/api/whoami")
        assert again._connection is not None
        assert again._connection.sock is not None
        found.setdefault(worker_of(shop, again._connection.sock), again)
    return found


def test_connections_go_to_the_worker_that_has_the_fewest(shop: Shop) -> None:
    shop.hang_up_all()
    time.sleep(1.2)
    open_ones = []
    served = []
    for _ in range(20):
        connection = socket.create_connection(("127.0.0.1", shop.http))
        open_ones.append(connection)
        served.append(worker_of(shop, connection))
    counts = [served.count(pid) for pid in shop.workers()]
    for connection in open_ones:
        connection.close()
    assert min(counts) >= 8, counts


def test_each_process_has_one_thread(shop: Shop) -> None:
    shop.admin.ask("GET", "/api/whoami")
    for pid in [shop.foreman, *shop.workers()]:
        assert len(os.listdir(f"/proc/{pid}/task")) == 1


def test_a_suspension_through_one_worker_holds_on_the_other_at_the_next_request(
    shop: Shop,
) -> None:
    victim = shop.newcomer()
    (one, theirs), (other, _) = on_each(shop, victim).items()
    admins = on_each(shop, shop.admin)
    assert theirs.ask("GET", "/api/whoami").status == 200
    for suspended in ("true", "false", "true"):
        answer = admins[other].ask(
            "POST", f"/api/users/{victim.name}", form={"suspended": suspended}
        )
        assert answer.status == 200, answer
        assert theirs.ask("GET", "/api/whoami").status == (403 if suspended == "true" else 200)
    assert one != other


def test_what_one_worker_stored_the_other_serves(shop: Shop) -> None:
    (_, one), (_, other) = on_each(shop, shop.admin).items()
    assert one.ask("POST", "/api/images", form={"name": "shared"}).status == 201
    assert one.ask("PUT", "/api/images/raw/shared", body=b"x" * 5000).status == 200
    assert other.ask("GET", "/api/images/raw/shared").body == b"x" * 5000
    assert other.ask("PUT", "/api/images/raw/shared", body=b"y" * 5000).status == 200
    assert one.ask("GET", "/api/images/raw/shared").body == b"y" * 5000


def test_the_lines_of_both_workers_stay_whole_in_one_access_log(shop: Shop) -> None:
    long = "/api/users/" + "x" * 3000

    def ask_often(person: Person) -> None:
        for _ in range(100):
            person.ask("GET", long)

    threads = [
        threading.Thread(target=ask_often, args=[person])
        for person in on_each(shop, shop.admin).values()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log = shop.directory / "state" / "log" / "access.log"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len([line for line in lines if line["path"].startswith(long[:1000])]) == 200
    assert log.stat().st_mode & 0o777 == 0o600


def test_what_a_worker_logs_is_a_line_of_the_daemons_log(shop: Shop) -> None:
    text = shop.log.read_text()
    form = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0000 \[\S+( \(TLS\))?\] .*"
    assert [line for line in text.splitlines() if not re.fullmatch(form, line)] == []
    assert text.count("Audit: row") == 1  # and no worker does what one does for all


def test_every_worker_shows_what_all_of_them_did(shop: Shop) -> None:
    mallory = shop.stranger("Many Faced Mallory")
    faces = on_each(shop, mallory)
    for path, person in zip(
        ("/api/users/one-of-two", "/api/users/two-of-two"), faces.values(), strict=True
    ):
        assert person.ask("GET", path).status == 403
    time.sleep(2.2)
    for admin in on_each(shop, shop.admin).values():
        page = admin.ask("GET", "/activity").text
        assert "/api/users/one-of-two" in page
        assert "/api/users/two-of-two" in page


def test_monitoring_sees_the_sum(shop: Shop) -> None:
    before = number(shop.metrics(), 'repoman_requests_total{method="HEAD",status="200"}') \
        if 'method="HEAD",status="200"' in shop.metrics() else 0.0  # fmt: skip
    for person in on_each(shop, shop.admin).values():
        for _ in range(5):
            assert person.ask("HEAD", "/api/whoami").status == 200
    time.sleep(1.5)
    text = shop.metrics()
    assert number(text, 'repoman_requests_total{method="HEAD",status="200"}') == before + 10
    assert 0 < number(text, "repoman_certificate_days") < 1000
    assert number(text, 'repoman_database_connections{state="free"}') >= 4
    assert 0 < number(text, "repoman_loop_lag_seconds") < 10


def connect(shop: Shop, count: int) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", shop.https)) for _ in range(count)]


def status_on(shop: Shop, connection: socket.socket) -> int:
    connection.settimeout(30)
    with shop.nobody.tls.wrap_socket(connection, server_hostname="localhost") as secure:
        secure.sendall(b"GET /api/whoami HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return int(secure.recv(100).split()[1])


def test_connections_that_wait_are_served_by_the_other_when_a_worker_is_killed(own: Shop) -> None:
    old = own.workers()
    for pid in old:
        os.kill(pid, signal.SIGSTOP)
    waiting = connect(own, 20)
    os.kill(old[0], signal.SIGKILL)
    waiting += connect(own, 20)
    os.kill(old[1], signal.SIGCONT)
    assert [status_on(own, connection) for connection in waiting] == [403] * 40
    soon(lambda: len(own.workers()) == 2)
    text = own.log.read_text()
    assert "ended: " in text
    assert "another one begins in 0.1 s" in text


def test_metrics_do_not_go_backwards_when_a_worker_is_killed(own: Shop) -> None:
    for person in on_each(own, own.admin).values():
        person.ask("HEAD", "/api/whoami")
        person.ask("GET", "/api/users/nobody-of-that-name")
    time.sleep(1.5)
    name = 'repoman_requests_total{method="HEAD",status="200"}'
    assert number(own.metrics(), name) == 2
    old = own.workers()
    created = number(own.metrics(), "repoman_sent_bytes_created")
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    own.hang_up_all()
    own.wait_for_other_workers(old)
    assert number(own.metrics(), "repoman_workers") == 2
    assert number(own.metrics(), name) == 2
    assert number(own.metrics(), "repoman_request_seconds_count") >= 4
    assert number(own.metrics(), "repoman_sent_bytes_created") == created
    on_each(own, own.admin).popitem()[1].ask("HEAD", "/api/whoami")
    soon(lambda: number(own.metrics(), name) == 3)


def test_a_silent_worker_is_killed_and_replaced(own: Shop) -> None:
    old = own.workers()
    os.kill(old[0], signal.SIGSTOP)
    begun = time.monotonic()
    assert [status_on(own, one) for one in connect(own, 5)] == [403] * 5  # the other one
    soon(lambda: old[0] not in own.workers(), 30)
    assert 5 < time.monotonic() - begun < 20
    soon(lambda: len(own.workers()) == 2)
    assert "was silent and is killed" in own.log.read_text()
    assert old[1] in own.workers()


@contextmanager
def strangers_at_the_door(shop: Shop) -> Iterator[list[object]]:
    """Somebody who connects again and again; yields what came of it."""
    outcomes: list[object] = []
    leave = threading.Event()

    def come() -> None:
        while not leave.is_set():
            try:
                [connection] = connect(shop, 1)
                outcomes.append(status_on(shop, connection))
            except OSError as error:
                outcomes.append(error)

    comer = threading.Thread(target=come)
    comer.start()
    try:
        yield outcomes
    finally:
        leave.set()
        comer.join()


def big_image(shop: Shop) -> bytes:
    body = os.urandom(MIB) * 48
    shop.admin.ask("POST", "/api/images", form={"name": "big"})
    assert shop.admin.ask("PUT", "/api/images/raw/big", body=body).status == 200
    return body


def begin_to_fetch(person: Person) -> Callable[[], bytes]:
    connection = person.connection()
    connection.request("GET", "/api/images/raw/big")
    response = connection.getresponse()
    begin = response.read(MIB)
    return lambda: begin + response.read()


def begin_to_put(person: Person, size: int) -> Callable[[], int]:
    connection = person.connection()
    connection.putrequest("PUT", "/api/images/raw/slow")
    connection.putheader("Content-Length", str(size))
    connection.endheaders(b"x" * (size // 2))

    def end() -> int:
        connection.send(b"x" * (size - size // 2))
        return connection.getresponse().status

    return end


def test_a_reload_refuses_nobody_cuts_nobody_and_brings_the_new_limits(own: Shop) -> None:
    body = big_image(own)
    own.admin.ask("POST", "/api/images", form={"name": "slow"})
    old = own.workers()
    fetch, put = begin_to_fetch(own.admin), begin_to_put(own.admin, MIB)
    own.config.write_text(own.config.read_text() + "\n[limits]\nmax_upload = 1000\n")
    with strangers_at_the_door(own) as outcomes:
        os.kill(own.foreman, signal.SIGHUP)
        own.wait_for_other_workers(old)
        soon(lambda: "looked at again" in own.log.read_text())
        time.sleep(0.5)
    assert len(outcomes) > 10
    assert set(outcomes) == {403}
    assert own.admin.ask("PUT", "/api/images/raw/slow", body=b"x" * 2000).status == 413
    assert put() == 200
    assert fetch() == body
    soon(lambda: not set(own.workers()) & set(old))
    assert "Traceback" not in own.log.read_text()


def test_the_access_log_is_opened_anew_by_a_reload(own: Shop) -> None:
    log = own.directory / "state" / "log" / "access.log"
    log.rename(log.with_suffix(".1"))
    old = own.workers()
    os.kill(own.foreman, signal.SIGHUP)
    soon(lambda: "looked at again" in own.log.read_text())
    soon(lambda: not set(own.workers()) & set(old))
    own.hang_up_all()
    own.admin.ask("GET", "/api/whoami")
    soon(lambda: log.exists() and "/api/whoami" in log.read_text())


def test_a_configuration_with_mistakes_changes_nothing_and_is_told(own: Shop) -> None:
    old = own.workers()
    good = own.config.read_text()
    own.config.write_text(good + "\n[limits]\nmax_upload = big\n")
    os.kill(own.foreman, signal.SIGHUP)
    soon(lambda: "reload configuration: " in own.log.read_text())
    assert own.workers() == old
    answer = ask_plain(f"http://127.0.0.1:{own.monitoring}/readyz")
    assert (answer.status, "'big' is not a size" in answer.text) == (503, True)
    own.config.write_text(good + "\n[tls]\ncrl = off\n")
    os.kill(own.foreman, signal.SIGHUP)
    own.wait_for_other_workers(old)
    assert "[tls] crl has changed: that needs a restart" in own.log.read_text()


def test_new_workers_that_do_not_start_change_nothing_and_it_is_told(own: Shop) -> None:
    old = own.workers()
    key = own.directory / "hostkey.pem"
    good = key.read_bytes()
    key.write_bytes(b"no key")
    os.kill(own.foreman, signal.SIGHUP)
    soon(lambda: "hostkey.pem" in ask_plain(f"http://127.0.0.1:{own.monitoring}/readyz").text)
    soon(lambda: own.workers() == old)
    assert own.admin.ask("GET", "/api/whoami").status == 200
    key.write_bytes(good)
    os.kill(own.foreman, signal.SIGHUP)
    own.wait_for_other_workers(old)


def test_a_stop_cuts_nobody_and_leaves_nothing(own: Shop) -> None:
    body = big_image(own)
    fetch = begin_to_fetch(own.admin)
    os.kill(own.foreman, signal.SIGTERM)
    time.sleep(1)
    with pytest.raises(ConnectionRefusedError):
        connect(own, 1)
    assert fetch() == body
    assert own.process is not None
    own.process.wait(20)
    assert left_behind(own) == []


def test_a_second_signal_hurries_the_workers(own: Shop) -> None:
    big_image(own)
    fetch = begin_to_fetch(own.admin)
    os.kill(own.foreman, signal.SIGTERM)
    time.sleep(1)
    begun = time.monotonic()
    os.kill(own.foreman, signal.SIGTERM)
    assert own.process is not None
    own.process.wait(20)
    assert time.monotonic() - begun < 10
    with pytest.raises(Exception, match=r"."):
        fetch()
    assert "Told to stop again" in own.log.read_text()
    assert left_behind(own) == []


@pytest.mark.parametrize("frozen", [False, True])
def test_a_killed_foreman_leaves_nobody_and_hinders_no_new_start(own: Shop, frozen: bool) -> None:
    workers = own.workers()
    if frozen:
        os.kill(workers[0], signal.SIGSTOP)
    os.kill(own.foreman, signal.SIGKILL)
    assert own.process is not None
    own.process.wait(10)
    own.hang_up_all()
    soon(lambda: not any(b"--logger=" in command_of(pid) for pid in workers), 5)
    own.start()
    assert own.admin.ask("GET", "/api/whoami").status == 200


def test_a_port_in_use_is_one_line_and_status_1(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    with socket.create_server(("127.0.0.1", shop.http)):
        line = start(shop)
        assert f"tcp:{shop.http}:interface=127.0.0.1: Address already in use" in line


FAILING = """
import os
if "REPOMAN_ORDERS" in os.environ:
    from repoman.errors import TrustUnreadable
    from repoman.tls import ServerTLS
    def load(self):
        raise TrustUnreadable("The key has gone: bring it back.")
    ServerTLS.load = load
from twisted.scripts.twistd import run
run()
"""


def test_workers_that_cannot_start_are_one_line_and_status_1(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    (tmp_path / "failing.py").write_text(FAILING)
    shop.twistd = [sys.executable, tmp_path / "failing.py"]
    assert "The key has gone: bring it back." in start(shop)


HINDERED = """
import os, signal, time
if "REPOMAN_ORDERS" not in os.environ:
    from twisted.internet import reactor
    from repoman.workers import foreman
    def spawn(*args, spawn=foreman.spawn):
        if os.path.exists("no-processes"):
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return spawn(*args)
    foreman.spawn = spawn
    signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(time.sleep, 11))
from twisted.scripts.twistd import run
run()
"""


@pytest.fixture
def hindered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """One that cannot fork while there is the file, and that sleeps when told."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hindered.py").write_text(HINDERED)
    shop = Shop(tmp_path)
    shop.twistd = [sys.executable, tmp_path / "hindered.py"]
    with shop.running():
        yield shop


def test_a_worker_is_replaced_once_there_are_processes_again(hindered: Shop) -> None:
    old = hindered.workers()
    wall = hindered.directory / "no-processes"
    wall.touch()
    os.kill(old[0], signal.SIGKILL)
    soon(lambda: hindered.log.read_text().count("not started (") >= 3)
    assert hindered.workers() == old[1:]
    wall.unlink()
    soon(lambda: len(hindered.workers()) == 2 and hindered.serving() == 2)
    assert "Traceback" not in hindered.log.read_text()


def test_new_workers_that_die_change_nothing_and_it_is_told(hindered: Shop) -> None:
    old = hindered.workers()
    wall = hindered.directory / "no-processes"
    wall.touch()
    os.kill(hindered.foreman, signal.SIGHUP)
    soon(lambda: not hindered.is_ready())
    said = ask_plain(f"http://127.0.0.1:{hindered.monitoring}/readyz").text
    assert "The configuration was not reloaded: worker" in said
    assert hindered.workers() == old
    wall.unlink()
    os.kill(hindered.foreman, signal.SIGHUP)
    hindered.wait_for_other_workers(old)
    soon(hindered.is_ready)


def test_a_foreman_that_did_not_listen_kills_nobody_for_silence(hindered: Shop) -> None:
    old = hindered.workers()
    os.kill(hindered.foreman, signal.SIGUSR1)
    time.sleep(12)
    assert hindered.serving() == 2
    assert hindered.workers() == old
    assert "was silent" not in hindered.log.read_text()


FAULTY = """
import os
if "REPOMAN_ORDERS" in os.environ:
    from repoman.workers.employed import Lent
    async def listen(self, endpoint, factory):
        raise ZeroDivisionError
    Lent.listen = listen
from twisted.scripts.twistd import run
run()
"""


def test_a_fault_of_ours_in_all_workers_ends_the_start_with_its_traceback_in_the_log(
    tmp_path: Path,
) -> None:
    shop = Shop(tmp_path)
    (tmp_path / "faulty.py").write_text(FAULTY)
    done = subprocess.run(
        [sys.executable, tmp_path / "faulty.py", "--nodaemon", "--pidfile=", "--logfile=t.log",
         "repoman", "-c", shop.config],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done
    text = (tmp_path / "t.log").read_text()
    assert "Not started\n\tTraceback" in text
    assert "ZeroDivisionError" in text
    assert left_behind(shop) == []


def test_systemd_hears_of_start_life_reload_and_stop_from_the_foreman(tmp_path: Path) -> None:
    told = Told(tmp_path / "notify")
    shop = Shop(tmp_path)
    shop.environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"}
    with shop.running():
        told.wait_for("READY=1")
        told.wait_for("WATCHDOG=1")
        os.kill(shop.foreman, signal.SIGHUP)
        told.wait_for("RELOADING=1")
        told.wait_for("READY=1")
        os.kill(shop.foreman, signal.SIGTERM)
        told.wait_for("STOPPING=1")


def test_systemd_hears_of_the_start_from_the_foreman_though_its_socket_was_full(
    tmp_path: Path,
) -> None:
    told = Told(tmp_path / "notify")
    told.fill()
    shop = Shop(tmp_path)
    shop.environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    with shop.running():
        told.wait_for("READY=1")


def test_workers_share_a_socket_of_systemd_and_one_in_the_file_system(
    tmp_path: Path, listening: socket.socket
) -> None:
    shop = activated(tmp_path, listening)
    place = tmp_path / "public"
    text = shop.config.read_text().replace("[server]", "[server]\nworkers = 2")
    text = re.sub(r"(?m)^http = .*$", f"http = unix:{place}", text)
    shop.config.write_text(text)

    def ask_there() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(place))
            connection.sendall(b"GET /api/whoami HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return connection.recv(12)

    with shop.running():
        assert shop.admin.ask("GET", "/api/whoami").status == 200
        assert ask_there() == b"HTTP/1.1 403"
        os.kill(shop.process.pid, signal.SIGHUP)  # type: ignore[union-attr]
        soon(lambda: "looked at again" in shop.log.read_text())
        time.sleep(1)
        assert shop.admin.ask("GET", "/api/whoami").status == 200
        assert ask_there() == b"HTTP/1.1 403"
    assert not place.exists()
    assert "Traceback" not in shop.log.read_text()
    assert "TypeError" not in shop.log.read_text()
