"""Each number of /metrics moves with what it counts, in a real daemon."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import psycopg2
import pytest

from tests.credentials import crl, host, name_hash, now
from tests.ledger import pid_of
from tests.server import Daemon, ask_plain, free_ports
from tests.test_monitoring import number

CA = '{ca="/C=CA/O=Grid/CN=Test CA"}'


class Watched(Daemon):
    """A daemon and its monitoring."""

    def __init__(self, directory: Path) -> None:
        [self.monitoring] = free_ports(1)
        super().__init__(
            directory, metrics={"endpoint": f"tcp:{self.monitoring}:interface=127.0.0.1"}
        )

    def read(self, name: str) -> float:
        return number(ask_plain(f"http://127.0.0.1:{self.monitoring}/metrics").text, name)

    def wait_until(self, name: str, holds: Callable[[float], bool]) -> None:
        end = time.monotonic() + 20
        while not holds(value := self.read(name)):
            assert time.monotonic() < end, (name, value)
            time.sleep(0.1)

    def reload(self) -> None:
        before = self.log.read_text().count("looked at again")
        os.kill(pid_of(self), signal.SIGHUP)
        end = time.monotonic() + 20
        while self.log.read_text().count("looked at again") == before:
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    daemon = Watched(tmp_path_factory.mktemp("metrics"))
    with daemon.running():
        yield daemon


def test_requests_their_bytes_and_their_time_are_added_up(own: Watched) -> None:
    names = (
        'repoman_requests_total{method="PUT",status="200"}',
        "repoman_received_bytes_total",
        "repoman_sent_bytes_total",
        "repoman_request_seconds_count",
    )
    admin = own.admin
    admin.ask("POST", "/api/images", form={"name": "one"})
    admin.ask("PUT", "/api/images/raw/one", body=b"x")
    before = [own.read(name) for name in names]
    admin.ask("PUT", "/api/images/raw/one", body=b"x" * 1000)
    admin.ask("GET", "/api/images/raw/one")
    put, received, sent, requests = (
        own.read(name) - then for name, then in zip(names, before, strict=True)
    )
    assert (put, received, requests) == (1, 1000, 2)
    assert 1000 <= sent < 5000


def test_connections_and_transfers_are_counted_while_they_last(own: Watched) -> None:
    uploads, downloads = (f'repoman_transfers{{direction="{way}load"}}' for way in ("up", "down"))
    admin, before = own.admin, own.read("repoman_connections")
    admin.ask("POST", "/api/images", form={"name": "large"})
    admin.ask("PUT", "/api/images/raw/large", body=bytes(32 << 20))
    with closing(admin.connection()) as up, closing(admin.connection()) as down:
        up.putrequest("PUT", "/api/images/raw/large")
        up.putheader("Content-Length", "1000")
        up.endheaders(b"x" * 500)
        down.request("GET", "/api/images/raw/large")
        own.wait_until(uploads, lambda count: count == 1)
        own.wait_until(downloads, lambda count: count == 1)
        assert own.read("repoman_connections") >= before + 2
    own.wait_until(uploads, lambda count: count == 0)
    own.wait_until(downloads, lambda count: count == 0)


def test_the_pool_tells_who_has_a_connection_and_who_waits(own: Watched) -> None:
    free, used = (f'repoman_database_connections{{state="{state}"}}' for state in ("free", "used"))
    own.wait_until(free, lambda count: count == 8)
    people = [own.person(f"Waiting {n}") for n in range(12)]
    with ThreadPoolExecutor(len(people)) as threads:
        with closing(psycopg2.connect(own.dsn)) as connection:
            connection.cursor().execute("LOCK TABLE account, login")
            asked = [threads.submit(one.ask, "GET", "/api/whoami") for one in people]
            own.wait_until(used, lambda count: count == 8)
            own.wait_until("repoman_database_waiting", lambda count: count >= 1)
        assert {one.result().status for one in asked} <= {403, 503}
    own.wait_until(used, lambda count: count == 0)
    assert own.read("repoman_database_waiting") == 0


def test_room_is_what_the_reserve_leaves(own: Watched) -> None:
    free, total = (f'repoman_store_bytes{{room="{room}"}}' for room in ("free", "total"))
    assert 0 < own.read(free) < own.read(total)
    text = own.config.read_text()
    own.config.write_text(f"{text}\n[limits]\ndisk_reserve = 1000TiB\n")
    own.reload()
    assert own.read(free) == 0 < own.read(total)
    own.config.write_text(text)
    own.reload()
    assert own.read(free) > 0


def test_the_sweeper_counts_what_it_removed(own: Watched) -> None:
    before = own.read("repoman_sweeper_removed_files")
    own.admin.ask("POST", "/api/images", form={"name": "brief"})
    own.admin.ask("PUT", "/api/images/raw/brief", body=b"x")
    assert own.admin.ask("DELETE", "/api/images/brief").status < 300
    own.wait_until("repoman_sweeper_removed_files", lambda count: count >= before + 1)


def test_a_stall_of_the_loop_is_seen_at_the_next_scrape_and_then_forgotten(own: Watched) -> None:
    os.kill(pid_of(own), signal.SIGSTOP)
    time.sleep(3)
    os.kill(pid_of(own), signal.SIGCONT)
    time.sleep(0.5)
    assert own.read("repoman_loop_lag_seconds") > 2
    time.sleep(0.2)
    assert own.read("repoman_loop_lag_seconds") < 2


def test_the_ends_of_certificate_and_crl_are_those_of_the_files(own: Watched) -> None:
    certificate = host(own.grid.ca, "localhost", "127.0.0.1", ends=now() + timedelta(days=7))
    certificate.write_pair(own.directory / "hostcert.pem", own.directory / "hostkey.pem")
    times = {"begins": now() - timedelta(days=5), "ends": now() + timedelta(days=3)}
    (own.ca_directory / f"{name_hash(own.grid.ca)}.r0").write_bytes(crl(own.grid.ca, **times))
    own.reload()
    assert 6.9 < own.read("repoman_certificate_days") < 7.1
    assert 2.9 < own.read(f"repoman_crl_days{CA}") < 3.1
    assert 4.9 < own.read(f"repoman_crl_age_days{CA}") < 5.1
