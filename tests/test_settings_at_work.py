"""Every setting does something: here, or in the test that is named for it."""

from __future__ import annotations

import http.client
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from repoman.config import SECTIONS, keys
from tests.credentials import p256_key
from tests.server import ROOT, Daemon, Person, ask_plain
from tests.test_operator import operate

ELSEWHERE = {
    "server.https": "test_start_failures.py::test_a_port_in_use",
    "server.workers": "test_workers.py::test_connections_go_to_the_worker_that_has_the_fewest",
    "server.state": "test_operator.py::test_everything_is_made_before_the_first_start",
    "tls.certificate": "test_start_failures.py::test_no_certificate",
    "tls.key": "test_start_failures.py::test_a_certificate_that_does_not_fit_its_key",
    "tls.ca_directory": "test_start_failures.py::test_a_ca_directory_without_a_ca",
    "tls.reload": "test_monitoring.py::test_readyz_tells_that_trust_could_not_be_reloaded",
    "database.dsn": "end_to_end/test_database_absent.py::dsn",
    "storage.backend": "end_to_end/test_two_daemons.py::s3",
    "storage.redirect": "resources/test_redirects.py::redirect",
    "storage.endpoint": "on_ceph/test_gateway.py::test_an_absent_object_store_is_waited_for",
    "storage.bucket": "storage/s3/test_s3_start.py::test_another_repositorys_bucket_is_refused",
    "storage.region": "storage/s3/test_s3_start.py::region",
    "storage.prefix": "storage/s3/test_s3_start.py::prefix",
    "storage.credentials": "storage/s3/test_s3_start.py::test_what_is_wrong_with_key_and_bucket",
    "storage.part_size": "storage/s3/test_s3_uploads.py::part_size",
    "storage.ca_file": "storage/s3/test_s3_start.py::test_only_the_named_host_of_a_trusted_ca",
    "storage.directory": "end_to_end/test_disks.py::storage",
    "accounts.admins": "test_operator.py::test_everything_is_made_before_the_first_start",
    "limits.max_upload": "test_supervised.py::test_limits_change_without_a_restart",
    "limits.quota": "test_supervised.py::test_limits_change_without_a_restart",
    "limits.upload_time": "end_to_end/test_meanwhile.py::upload_time",
    "limits.expired_kept": "end_to_end/test_expiry.py::expired_kept",
    "limits.disk_reserve": "test_supervised.py::test_limits_change_without_a_restart",
    "limits.connections": "end_to_end/test_attacks.py::connections",
    "log.format": "test_monitoring.py::test_the_access_log_has_a_line_for_each_request_in_json_too",
    "log.audit_kept": "test_audit.py::test_rows_older_than_configured_are_forgotten",
    "metrics.endpoint": "test_monitoring.py::test_metrics_count_requests_and_bytes",
}
HASTY = """
import repoman.channel
repoman.channel.RATE_WINDOW = 1.0
from twisted.scripts.twistd import run
run()
"""
HERE = {
    "server.http", "server.url", "server.http_url", "tls.crl", "tls.signing_policy",
    "tls.limited_proxies", "tls.legacy_proxies", "limits.partial_uploads", "log.access",
    "limits.uploads", "limits.min_rate", "limits.images", "limits.hypervisors", "limits.shares",
    "limits.refusals",
}  # fmt: skip


def test_every_setting_has_its_test() -> None:
    declared = {f"{section}.{key}" for section in SECTIONS for key in keys(section)}
    assert set(ELSEWHERE) | HERE == declared
    own = Path(__file__).read_text()
    assert [name for name in HERE if name.partition(".")[2] not in own] == []
    for name, place in ELSEWHERE.items():
        file, _, word = place.partition("::")
        assert word in (ROOT / "tests" / file).read_text(), name


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Everything that is strict is off, and everything that is usual is another way."""
    daemon = Daemon(
        tmp_path_factory.mktemp("lenient"),
        server={"url": "https://repo.example.org:1", "http_url": "http://plain.example.org"},
        tls={"crl": "off", "signing_policy": "off", "limited_proxies": "allow",
             "legacy_proxies": "yes"},
        limits={"partial_uploads": "1s", "uploads": "1", "min_rate": "1GiB"},
        log={"access": "-"},
    )  # fmt: skip
    # A minute's patience would be long for a test.
    daemon.twistd = [sys.executable, "-c", HASTY]
    with daemon.running():
        yield daemon


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """The same settings, at their other ends."""
    daemon = Daemon(
        tmp_path_factory.mktemp("strict"),
        server={"http": ""},
        tls={"crl": "require", "signing_policy": "require", "limited_proxies": "deny"},
        limits={"images": "2", "hypervisors": "1", "shares": "1", "refusals": "3"},
    )
    with daemon.running():
        yield daemon


def limited(daemon: Daemon) -> Person:
    person = daemon.person("Batch Job", limited=True)
    form = {"user_name": "batch", "cert_dn": person.dn}
    assert daemon.admin.ask("POST", "/api/users", form=form).status == 200
    return person


def test_limited_proxies_may_what_is_configured(
    lenient: Daemon, strict: Daemon, daemon: Daemon
) -> None:
    asked = {"method": "POST", "target": "/api/images", "form": {"name": "made"}}
    assert limited(lenient).ask(**asked).status == 201  # type: ignore[arg-type]
    usual = limited(daemon)
    assert usual.ask("GET", "/api/whoami").status == 200
    assert usual.ask(**asked).status == 403  # type: ignore[arg-type]
    assert limited(strict).ask("GET", "/api/whoami").status == 403


def test_legacy_proxies_come_in_only_where_configured(lenient: Daemon, strict: Daemon) -> None:
    for daemon, status in ((lenient, 200), (strict, 403)):
        person = daemon.newcomer()
        assert person.credential is not None
        old = person.credential.legacy_proxy(key=p256_key("proxy"))
        person.proxy = old.write(daemon.directory / "legacy")
        assert person.ask("GET", "/api/whoami").status == status


def reloaded(daemon: Daemon) -> None:
    before = daemon.log.read_text().count("looked at again")
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + 20
    while daemon.log.read_text().count("looked at again") == before:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_signing_policies_and_crls_are_needed_where_configured(
    lenient: Daemon, strict: Daemon
) -> None:
    for pattern in ("*.signing_policy", "*.r0"):
        for daemon, status in ((lenient, 200), (strict, 403)):
            [file] = daemon.ca_directory.glob(pattern)
            kept = file.read_bytes()
            file.unlink()
            reloaded(daemon)
            assert daemon.admin.ask("GET", "/api/whoami").status == status, pattern
            file.write_bytes(kept)
            reloaded(daemon)
            assert daemon.admin.ask("GET", "/api/whoami").status == 200


def test_a_revoked_certificate_is_let_in_where_crls_are_off(lenient: Daemon) -> None:
    victim = lenient.newcomer()
    assert victim.credential is not None
    lenient.grid.revoke(victim.credential)
    reloaded(lenient)
    assert victim.ask("GET", "/api/whoami").status == 200


def test_links_have_the_configured_urls(lenient: Daemon) -> None:
    form = {"name": "public", "unauthenticated_access": "true"}
    made = lenient.admin.ask("POST", "/api/images", form=form)
    assert made.headers["Location"].startswith("https://repo.example.org:1/api/images/raw/")
    assert made.json["http_file_url"].startswith("http://plain.example.org/api/images/raw/")


def test_the_plain_endpoint_is_there_only_where_configured(lenient: Daemon, strict: Daemon) -> None:
    assert ask_plain(f"{lenient.plain}/api/users").status == 403
    with pytest.raises(OSError, match="refused"):
        ask_plain(f"{strict.plain}/api/users")


def test_the_access_log_may_be_standard_output(lenient: Daemon) -> None:
    answer = lenient.admin.ask("GET", "/api/whoami")
    end = time.monotonic() + 10
    line = f"request_id={answer.headers['X-Request-Id']} peer=127.0.0.1"
    while line not in lenient.log.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_unfinished_uploads_are_kept_as_long_as_configured(lenient: Daemon) -> None:
    admin = lenient.admin
    admin.ask("POST", "/api/images", form={"name": "unfinished"})
    headers = {"Upload-Complete": "?0", "Upload-Length": "3"}
    assert admin.ask("POST", "/api/images/raw/unfinished", headers=headers).status == 201
    time.sleep(1.2)
    assert operate("sweep", "-c", lenient.config).returncode == 0
    assert admin.ask("GET", "/api/uploads").json == []


def test_a_user_runs_as_many_uploads_as_configured_and_not_too_slowly(lenient: Daemon) -> None:
    lenient.admin.ask("POST", "/api/images", form={"name": "slow"})
    connection = lenient.admin.connection()
    connection.putrequest("PUT", "/api/images/raw/slow")
    connection.putheader("Content-Length", "1000000")
    connection.endheaders(b"x")
    time.sleep(0.3)
    second = lenient.admin.ask("PUT", "/api/images/raw/slow", body=b"x")
    assert second.status == 429
    with pytest.raises((OSError, http.client.HTTPException)):  # under min_rate: cut
        connection.getresponse()
    connection.close()
    assert "Transfer too slow, cut" in lenient.log.read_text()


def test_what_one_user_adds_to_the_records_has_the_configured_limits(strict: Daemon) -> None:
    alice, admin = strict.newcomer(), strict.admin
    images, one = "/api/images", "/api/images/one"
    for method, target, form, status in (
        ("POST", images, {"name": "one", "hypervisor": "mine,kvm"}, 201),
        ("POST", one, {"hypervisor": "mine,other"}, 409),
        ("POST", images, {"name": "two", "hypervisor": "mine"}, 201),
        ("POST", images, {"name": "three"}, 409),
        ("POST", f"{one}/share/user/{admin.name}", {}, 200),
        ("POST", f"{one}/share/group/users", {}, 409),
        ("DELETE", "/api/images/two", {}, 200),
        ("POST", images, {"name": "three"}, 201),
        ("POST", one, {"name": "no name"}, 400),
        ("POST", one, {"name": "no name either"}, 400),
    ):
        answer = alice.ask(method, target, form=form)
        assert answer.status == status, (target, form, answer)
    audit = f"/api/audit?outcome=refused&user={alice.name}"
    end = time.monotonic() + 10
    while len(rows := admin.ask("GET", audit).json) < 4 and time.monotonic() < end:
        time.sleep(0.05)
    assert len(rows) == 4, "and not the fifth"
    assert "not noted" in rows[0]["detail"]["more"]
    page = admin.ask("GET", "/activity", headers={"Accept": "text/html"}).text
    for limit in ("Images of one user</dt><dd>2<", "one image is shared with</dt><dd>1<"):
        assert limit in page
