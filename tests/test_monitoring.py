"""Metrics, probes and the access log, as the real daemon gives them."""

from __future__ import annotations

import json
import re
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest

from repoman.accesslog import FIELDS, LIMITS, cut
from tests.ledger import pid_of, status
from tests.server import ROOT, Daemon, ask_plain, free_ports


def number(text: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found, f"{name} is not in\n{text}"
    return float(found.group(1))


def documented_metrics() -> set[str]:
    """The names in the table of docs/operations.md, as Prometheus has them."""
    text = (ROOT / "docs" / "operations.md").read_text()
    section = text.partition("## What monitoring sees")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)", section, re.MULTILINE))


def test_metrics_count_requests_and_bytes_and_probes_answer(tmp_path: Path) -> None:
    [port] = free_ports(1)
    endpoint = {"endpoint": f"tcp:{port}:interface=127.0.0.1"}
    with Daemon(tmp_path, metrics=endpoint).running() as daemon:
        base = f"http://127.0.0.1:{port}"
        assert ask_plain(f"{base}/healthz").text == "ok\n"
        assert ask_plain(f"{base}/readyz").text == "ready\n"
        assert ask_plain(f"{base}/other").status == 404
        daemon.admin.ask("POST", "/api/images", form={"name": "counted"})
        daemon.admin.ask("PUT", "/api/images/raw/counted", body=b"x" * 1000)
        daemon.admin.ask("GET", "/api/images/raw/counted")
        text = ask_plain(f"{base}/metrics").text
        assert number(text, 'repoman_requests_total{method="PUT",status="200"}') == 1
        assert number(text, "repoman_received_bytes_total") >= 1000
        assert number(text, "repoman_sent_bytes_total") >= 1000
        assert 0 <= number(text, "repoman_loop_lag_seconds") < 10
        assert number(text, 'repoman_transfers{direction="upload"}') == 0
        assert number(text, "repoman_workers") == 1
        assert number(text, "repoman_connections") >= 1
        assert number(text, 'repoman_database_connections{state="free"}') >= 1
        assert number(text, "repoman_database_waiting") == 0
        free = number(text, 'repoman_store_bytes{room="free"}')
        assert 0 < free <= number(text, 'repoman_store_bytes{room="total"}')
        assert number(text, "repoman_sweeper_removed_files") == 0
        assert number(text, 'repoman_store_troubles{kind="missing"}') == 0
        assert 0 < number(text, "repoman_certificate_days") < 1000
        ca = '{ca="/C=CA/O=Grid/CN=Test CA"}'
        assert 0 < number(text, f"repoman_crl_days{ca}") < 1000
        assert 0 <= number(text, f"repoman_crl_age_days{ca}") < 1000
        shown = set(re.findall(r"^# HELP (\w+)", text, re.MULTILINE))
        # The library adds when each counter began.
        assert {n for n in shown if not n.endswith("_created")} == documented_metrics()
        daemon.admin.ask("BREW", "/api/whoami")
        assert 'method="other"' in ask_plain(f"{base}/metrics").text


def test_readyz_tells_that_trust_could_not_be_reloaded(tmp_path: Path) -> None:
    [port] = free_ports(1)
    settings = {"metrics": {"endpoint": f"tcp:{port}:interface=127.0.0.1"}, "tls": {"reload": "1s"}}
    with Daemon(tmp_path, **settings).running() as daemon:
        key = tmp_path / "hostkey.pem"
        good = key.read_bytes()
        key.write_bytes(b"no key")
        end = time.monotonic() + 20
        while (answer := ask_plain(f"http://127.0.0.1:{port}/readyz")).status == 200:
            assert time.monotonic() < end, daemon.log.read_text()
            time.sleep(0.2)
        assert int(answer.headers["Retry-After"]) > 0
        trouble = "Trust was not reloaded, the old one stays in use: "
        assert trouble in answer.text
        assert trouble in daemon.log.read_text()
        assert str(key) in answer.text
        text = ask_plain(f"http://127.0.0.1:{port}/metrics").text
        assert number(text, 'repoman_background_failures_total{work="reload trust"}') >= 1
        assert daemon.admin.ask("GET", "/api/whoami").status == 200
        key.write_bytes(good)
        while ask_plain(f"http://127.0.0.1:{port}/readyz").status != 200:
            assert time.monotonic() < end + 20
            time.sleep(0.2)


def test_a_monitoring_port_in_use_does_not_stop_the_service(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    [port] = free_ports(1)
    endpoint = {"endpoint": f"tcp:{port}:interface=127.0.0.1"}
    with (
        Daemon(tmp_path / "one", metrics=endpoint).running(),
        Daemon(tmp_path / "two", metrics=endpoint).running() as daemon,
    ):
        assert daemon.admin.ask("GET", "/api/whoami").status == 200
        assert "going on without" in daemon.log.read_text()


def test_the_access_log_has_a_line_for_each_request_in_json_too(tmp_path: Path) -> None:
    with Daemon(tmp_path, log={"format": "json"}).running() as daemon:
        daemon.admin.ask("GET", "/api/whoami?a=b")
        daemon.nobody.ask("GET", "/api/users/x%0Ay")
        time.sleep(0.2)
        log = tmp_path / "state" / "log" / "access.log"
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert log.stat().st_mode & 0o777 == 0o600
        mine = next(line for line in lines if line["path"] == "/api/whoami?a=b")
        assert list(mine) == list(FIELDS)
        assert (mine["user"], mine["status"], mine["method"]) == (daemon.admin.name, 200, "GET")
        assert mine["dn"] == daemon.admin.dn
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", mine["time"])
        assert any(line["path"] == "/api/users/x%0Ay" for line in lines)


def lines_of(daemon: Daemon, path: str, count: int = 1) -> list[dict[str, object]]:
    """The lines of the access log about a path, as soon as there are so many."""
    log, end = daemon.directory / "state" / "log" / "access.log", time.monotonic() + 10
    while time.monotonic() < end:
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        if len(found := [line for line in lines if line["path"] == path]) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def test_the_access_log_tells_of_bytes_digests_ranges_and_cuts(tmp_path: Path) -> None:
    with Daemon(tmp_path, log={"format": "json"}).running() as daemon:
        admin, target = daemon.admin, "/api/images/raw/one"
        admin.ask("POST", "/api/images", form={"name": "one"})
        admin.ask("PUT", target, body=b"x" * 1000)
        admin.ask("GET", target, headers={"Range": "bytes=0-9"})
        connection = admin.connection()
        connection.putrequest("PUT", target)
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b"x" * 500)
        time.sleep(0.5)
        connection.close()
        put, got, cut = lines_of(daemon, target, 3)
        assert (put["received"], put["status"], put["complete"]) == (1000, 200, True)
        assert str(put["digest"]).startswith("sha-256=:")
        assert (got["range"], got["status"], got["bytes"]) == ("bytes=0-9", 206, 10)
        assert got["digest"] == put["digest"]
        assert (cut["complete"], cut["received"], cut["digest"]) == (False, 500, None)


def test_an_upload_that_was_cut_has_no_status_and_counts_as_none(tmp_path: Path) -> None:
    [port] = free_ports(1)
    endpoint = {"endpoint": f"tcp:{port}:interface=127.0.0.1"}
    with Daemon(tmp_path, log={"format": "json"}, metrics=endpoint).running() as daemon:
        daemon.admin.ask("POST", "/api/images", form={"name": "one"})
        with closing(daemon.admin.connection()) as connection:
            connection.putrequest("PUT", "/api/images/raw/one")
            connection.putheader("Content-Length", "1000")
            connection.endheaders(b"x" * 500)
            time.sleep(0.5)
        (cut,) = lines_of(daemon, "/api/images/raw/one")
        assert (cut["status"], cut["complete"]) == (None, False)
        assert 'method="PUT"' not in ask_plain(f"http://127.0.0.1:{port}/metrics").text


def test_the_access_log_names_who_asked_for_what_is_not_there(tmp_path: Path) -> None:
    with Daemon(tmp_path, log={"format": "json"}).running() as daemon:
        assert daemon.admin.ask("GET", "/api/nothing").status == 404
        (line,) = lines_of(daemon, "/api/nothing")
        assert (line["dn"], line["limited"]) == (daemon.admin.dn, False)


LONG = {
    "path": b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 16000),
    "quoted path": b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b'"' * 16000),
    "query": b"GET /?%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x=\\&" * 4000),
    "method": b"%s / HTTP/1.1\r\nHost: x\r\n\r\n" % (b"X" * 16000),
    "range": b"GET / HTTP/1.1\r\nHost: x\r\nRange: bytes=%s\r\n\r\n" % (b"0-1," * 4000),
    "controls": b"GET / HTTP/1.1\r\nHost: x\r\nRange: %s\r\n\r\n" % (b"\x01" * 16000),
    "odd range": b"GET / HTTP/1.1\r\nHost: x\r\nRange: %s\r\n\r\n" % ("\u00fc" * 7000).encode(),
    "other headers": b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: %s\r\n\r\n" % (b"x" * 16000),
}
"""Requests that have a field of almost 16 KiB."""


def lines_caused(daemon: Daemon, words: bytes, count: int) -> list[str]:
    """The lines of the access log for the same request, made again and again on one connection."""
    log = daemon.directory / "state" / "log" / "access.log"
    before = len(log.read_text().splitlines())
    with closing(socket.create_connection(("127.0.0.1", daemon.http), 30)) as peer:
        for _ in range(count):
            peer.sendall(words)
            assert peer.recv(65536).startswith(b"HTTP/1.1 4")
    end = time.monotonic() + 10
    while len(lines := log.read_text().splitlines()[before:]) < count:
        assert time.monotonic() < end
        time.sleep(0.02)
    return lines


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_stranger_makes_a_long_line_of_the_access_log(tmp_path: Path, form: str) -> None:
    with Daemon(tmp_path, log={"format": form}).running() as daemon:
        for what, words in LONG.items():
            for line in lines_caused(daemon, words, 3):
                assert len(line) < 3072, what
                assert what == "other headers" or re.search(r"\.\.\.\+[0-9]+\b", line), what
        pid, words = pid_of(daemon), LONG["controls"]
        lines_caused(daemon, words, 50)
        before = memory_of(pid)
        lines_caused(daemon, words, 1000)
        for number in range(300):
            name = b"GET / HTTP/1.1\r\nHost: x\r\n%d%s: 1\r\n\r\n" % (number, b"x" * 16000)
            with closing(socket.create_connection(("127.0.0.1", daemon.http), 30)) as peer:
                peer.sendall(name)
                assert peer.recv(65536).startswith(b"HTTP/1.1 431 ")
        assert memory_of(pid) - before < 4 << 20


def memory_of(pid: int) -> int:
    """Bytes that a process has in memory."""
    [line] = [line for line in status(pid).splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def test_a_line_that_is_short_stays_as_it_is() -> None:
    path = "/api/images/raw/" + "/".join(["x" * 100] * 3)
    assert cut(path, LIMITS["path"]) == path
    assert cut("/C=CA/O=Grid/CN=Zo\u00eb", 2000) == "/C=CA/O=Grid/CN=Zo\u00eb"
    assert cut("x" * 1030, 1024) == "x" * 1024 + "...+6"
    assert cut(None, 1) is None


def test_no_client_makes_a_line_of_the_service_log(tmp_path: Path) -> None:
    with Daemon(tmp_path).running() as daemon:
        forged = "2026-01-01T00:00:00+0000 [repoman#critical] forged"
        stranger = daemon.person(f"Mallory\n{forged}")
        stranger.ask("GET", "/api/whoami")
        daemon.admin.ask("GET", "/api/users/x%0A" + forged.replace(" ", "%20"))
        daemon.newcomer(full_name=f"x\n{forged}", email=f"y\n{forged}")
        daemon.admin.ask("GET", "/api/whoami", headers={"Range": "x", "User-Agent": "y\tz"})
        time.sleep(0.3)
        access = (tmp_path / "state" / "log" / "access.log").read_text()
        for line in [*daemon.log.read_text().splitlines(), *access.splitlines()]:
            assert not line.startswith(forged)
