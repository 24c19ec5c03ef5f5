"""``repoman.conf``: every setting has a default, and every mistake is told, by line, at once."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import serverFromString
from twisted.internet.testing import MemoryReactor

from repoman import settings
from repoman.config import SECTIONS, Config, keys, load, parse
from repoman.errors import Misconfigured
from repoman.settings import DURATION_UNITS, SIZE_UNITS, Amount, Share

SHIPPED = Path(__file__).parent.parent / "etc" / "repoman.conf"
GIB = 1024**3


def mistakes(content: str) -> list[str]:
    with pytest.raises(Misconfigured) as caught:
        parse(content, "r.conf")
    return list(caught.value.mistakes)


def documented(content: str) -> list[tuple[str, str, str]]:
    """Section, key and default of each commented-out setting of a configuration file."""
    found, section = [], ""
    for line in content.splitlines():
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = header[1]
        elif shown := re.fullmatch(r"#(\w+) =(.*)", line):
            found.append((section, shown[1], shown[2].strip()))
    return found


class TestTheShippedFile:
    def test_it_shows_every_key_with_its_default_in_the_order_of_the_schema(self) -> None:
        declared = [
            (section, key, attribute.metadata["text"])
            for section in SECTIONS
            for key, attribute in keys(section).items()
        ]
        assert documented(SHIPPED.read_text()) == declared

    def test_it_means_the_same_as_an_empty_file(self) -> None:
        assert load(SHIPPED) == parse("", "empty")

    def test_it_means_the_same_with_every_default_written_out(self) -> None:
        written = re.sub(r"(?m)^#(?=\w+ =)", "", SHIPPED.read_text())
        assert written.count("\n#https") == 0
        assert parse(written, "written") == parse("", "empty")

    def test_every_setting_has_its_reason_above_it(self) -> None:
        lines = SHIPPED.read_text().splitlines()
        shown = [n for n, line in enumerate(lines) if re.match(r"#\w+ =", line)]
        bare = [lines[n] for n in shown if not lines[n - 1].startswith("#")]
        assert shown
        assert bare == []

    def test_the_package_carries_it(self) -> None:
        assert files("repoman").joinpath("repoman.conf").read_text("utf-8") == SHIPPED.read_text()


class TestDefaults:
    def test_an_empty_file_has_the_defaults_of_the_contract(self) -> None:
        config = parse("", "empty")
        assert config.server.https == "tcp:8443"
        assert config.server.http is None
        assert config.server.url is None
        assert config.tls.certificate == Path("/etc/grid-security/hostcert.pem")
        assert config.tls.key == Path("/etc/grid-security/hostkey.pem")
        assert config.tls.ca_directory == Path("/etc/grid-security/certificates")
        assert (config.tls.crl, config.tls.signing_policy) == ("if-present", "if-present")
        assert config.tls.limited_proxies == "read-only"
        assert config.tls.legacy_proxies is False
        assert config.tls.reload == 300
        assert config.database.dsn is None
        assert config.storage.backend == "directory"
        assert config.storage.directory == Path("/var/lib/repoman/blobs")
        assert config.accounts.admins is None
        assert config.limits.max_upload == 64 * GIB
        assert config.limits.quota == 1024 * GIB
        assert config.limits.uploads == 4
        assert config.limits.partial_uploads == 7 * 86400
        assert config.limits.disk_reserve == Share(5)
        assert config.limits.min_rate == 8192
        assert config.limits.connections == 1000
        limits = config.limits
        assert (limits.images, limits.hypervisors) == (10_000, 100)
        assert (limits.shares, limits.refusals) == (1000, 100)
        assert config.log.access == Path("/var/lib/repoman/log/access.log")
        assert config.log.format == "text"
        assert config.metrics.endpoint == "tcp:9469:interface=127.0.0.1"

    def test_what_hangs_under_state_moves_with_it(self) -> None:
        config = parse("[server]\nstate = /srv/r\n[log]\naccess = my.log\n", "f")
        assert config.storage.directory == Path("/srv/r/blobs")
        assert config.log.access == Path("/srv/r/my.log")

    def test_absolute_paths_stand_for_themselves(self) -> None:
        config = parse("[storage]\ndirectory = /big/blobs\n[log]\naccess = -\n", "f")
        assert config.storage.directory == Path("/big/blobs")
        assert config.log.access is None


class TestMistakes:
    def test_all_are_told_at_once_each_with_file_line_section_and_key(self) -> None:
        found = mistakes(
            "stray = 1\n"
            "[server]\n"
            "https = ssl:443\n"
            "colour = blue\n"
            "\n"
            "[kitchen]\n"
            "sink = yes\n"
            "[limits]\n"
            "quota = 5 apples\n"
            "what is this\n"
        )
        assert [line.split(": ", 2)[:2] for line in found] == [
            ["r.conf:1", "stray"],
            ["r.conf:3", "[server] https"],
            ["r.conf:4", "[server] colour"],
            ["r.conf:6", "[kitchen]"],
            ["r.conf:9", "[limits] quota"],
            ["r.conf:10", "neither a [section] nor key = value"],
        ]

    def test_an_unknown_key_is_answered_with_the_known_ones(self) -> None:
        assert mistakes("[storage]\ndir = /x") == [
            "r.conf:2: [storage] dir: unknown; there are backend, directory, endpoint, bucket, "
            "region, prefix, credentials, part_size, ca_file, redirect"
        ]

    def test_an_unknown_section_is_answered_with_the_known_ones(self) -> None:
        (line,) = mistakes("[sever]\n")
        assert line.startswith("r.conf:1: [sever]: unknown; there are [server] [tls]")

    def test_a_key_said_twice_is_a_mistake_even_across_repeated_sections(self) -> None:
        found = mistakes("[tls]\ncrl = off\n[log]\n[tls]\ncrl = require\n")
        assert found == ["r.conf:5: [tls] crl: is there twice"]

    def test_an_object_store_needs_an_endpoint_and_a_bucket(self) -> None:
        assert mistakes("[storage]\nbackend = s3\nendpoint = ftp://h\n") == [
            "r.conf:3: [storage] endpoint: 'ftp://h' is not a URL of the form "
            "https://host[:port] or http://host[:port]",
            "r.conf: [storage] bucket: backend = s3 needs it",
        ]
        said = parse("[storage]\nbackend = s3\nendpoint = https://h/\nbucket = abc\n", "f")
        assert (said.storage.endpoint, said.storage.bucket) == ("https://h", "abc")

    def test_an_indented_key_is_a_key(self) -> None:
        config = parse("[limits]\n  uploads = 9\n  connections = 8\n", "f")
        assert (config.limits.uploads, config.limits.connections) == (9, 8)

    def test_percent_signs_and_equal_signs_in_values_are_only_themselves(self) -> None:
        dsn = "postgresql://u:p%40=%(x)s@h/db?sslmode=require"
        assert parse(f"[database]\ndsn = {dsn}\n", "f").database.dsn == dsn

    def test_a_password_is_neither_printed_nor_told(self) -> None:
        secret = "host=h password=hunter2"
        assert "hunter2" not in repr(parse(f"[database]\ndsn = {secret}\n", "f"))
        assert "hunter2" not in "".join(mistakes(f"[databse]\ndsn = {secret}\n{secret[6:8]}"))

    @pytest.mark.parametrize(
        ("section", "key", "value", "why"),
        [
            ("server", "https", "", "must not be empty"),
            ("server", "https", "8443", "begins with one of tcp:, tcp6:, unix:, systemd:"),
            ("server", "https", "tcp:", "has no port"),
            ("server", "https", "tcp:70000", "from 0 to 65535"),
            ("server", "https", "tcp:https", "from 0 to 65535"),
            ("server", "https", "tcp:8443:iface=lo", "says iface"),
            ("server", "https", "ssl:8443:privateKey=k", "TLS is put on the endpoint"),
            ("server", "http", "unix:", "has no address"),
            ("server", "url", "repoman.example.org", "https://host[:port]"),
            ("server", "url", "http://repoman.example.org", "https://host[:port]"),
            ("server", "url", "https://repoman.example.org/sub", "https://host[:port]"),
            ("server", "url", "https://h:99999", "https://host[:port]"),
            ("server", "state", "var/lib", "not an absolute path"),
            ("tls", "certificate", "hostcert.pem", "not an absolute path"),
            ("tls", "crl", "maybe", "require, if-present, off"),
            ("tls", "signing_policy", "yes", "require, if-present, off"),
            ("tls", "limited_proxies", "no", "allow, read-only, deny"),
            ("tls", "legacy_proxies", "true", "neither yes nor no"),
            ("tls", "reload", "0", "from 1 second"),
            ("storage", "backend", "tape", "directory, s3"),
            ("storage", "endpoint", "s3.example.org", "https://host[:port]"),
            ("storage", "endpoint", "https://s3.example.org/bucket", "https://host[:port]"),
            ("storage", "bucket", "My_Bucket", "3 to 63"),
            ("storage", "bucket", "ab", "3 to 63"),
            ("storage", "prefix", "images", "a slash at its end"),
            ("storage", "prefix", "a//b/", "a slash at its end"),
            ("storage", "prefix", "../", "a slash at its end"),
            ("storage", "prefix", "a b/", "a slash at its end"),
            ("storage", "part_size", "1MiB", "from 5MiB"),
            ("storage", "part_size", "65MiB", "to 64MiB"),
            ("storage", "credentials", "keys", "not an absolute path"),
            ("storage", "directory", "", "must not be empty"),
            ("storage", "redirect", "yes", "no, public, all"),
            ("limits", "max_upload", "64GB", "units: B KiB"),
            ("limits", "max_upload", "-1", "not a size"),
            ("limits", "quota", "9999999999PiB", "not a size"),
            ("limits", "uploads", "0", "from 1"),
            ("limits", "uploads", "four", "from 1"),
            ("limits", "partial_uploads", "1 month", "units: s m h d w"),
            ("limits", "disk_reserve", "100%", "neither a share"),
            ("limits", "disk_reserve", "lots", "neither a share"),
            ("log", "format", "xml", "text, json"),
            ("metrics", "endpoint", "9469", "is not an endpoint"),
        ],
    )
    def test_a_bad_value_is_answered_with_what_is_allowed(
        self, section: str, key: str, value: str, why: str
    ) -> None:
        (line,) = mistakes(f"[{section}]\n{key} = {value}\n")
        assert line.startswith(f"r.conf:2: [{section}] {key}: ")
        assert why in line

    @pytest.mark.parametrize(
        ("section", "key", "value", "meaning"),
        [
            ("server", "https", "tcp6:port=0:interface=\\:\\:1", "tcp6:port=0:interface=\\:\\:1"),
            ("server", "https", "systemd:domain=INET6:index=0", "systemd:domain=INET6:index=0"),
            ("server", "http", "tcp:8080", "tcp:8080"),
            ("server", "url", "https://[2001:db8::1]:8443/", "https://[2001:db8::1]:8443"),
            ("server", "http_url", "https://images.example.org", "https://images.example.org"),
            ("tls", "legacy_proxies", "yes", True),
            ("tls", "reload", "5m", 300),
            ("accounts", "admins", "/etc/repoman/admins", Path("/etc/repoman/admins")),
            ("limits", "max_upload", "123", 123),
            ("limits", "quota", "3 TiB", 3 * 1024 * GIB),
            ("limits", "min_rate", "0", 0),
            ("limits", "disk_reserve", "20GiB", Amount(20 * GIB)),
            ("limits", "disk_reserve", "0%", Share(0)),
            ("log", "format", "json", "json"),
            ("metrics", "endpoint", "", None),
        ],
    )
    def test_a_good_value_is_taken(
        self, section: str, key: str, value: str, meaning: object
    ) -> None:
        config = parse(f"[{section}]\n{key} = {value}\n", "f")
        assert getattr(getattr(config, section), key) == meaning


class TestTheFile:
    def test_a_missing_one_is_said_to_be_missing(self, tmp_path: Path) -> None:
        with pytest.raises(Misconfigured, match=r"none\.conf: no such file"):
            load(tmp_path / "none.conf")

    def test_one_that_is_a_directory_is_said_not_to_be_readable(self, tmp_path: Path) -> None:
        with pytest.raises(Misconfigured, match="cannot be read: Is a directory"):
            load(tmp_path)

    def test_one_that_is_no_text_is_said_to_be_none(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_bytes(b"[server]\n\xff\n")
        with pytest.raises(Misconfigured, match="not UTF-8 text, at byte 9"):
            load(tmp_path / "f")

    def test_windows_line_ends_and_a_byte_order_mark_do_no_harm(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_bytes("\ufeff[limits]\r\nuploads = 7\r\n".encode())
        assert load(tmp_path / "f").limits.uploads == 7


class TestLaws:
    @given(st.integers(0, 2**20), st.sampled_from(list(SIZE_UNITS)), st.sampled_from(["", " "]))
    def test_a_size_is_its_number_times_its_unit(self, number: int, unit: str, gap: str) -> None:
        if number * SIZE_UNITS[unit] < 2**63:
            assert settings.size(f"{number}{gap}{unit}") == number * SIZE_UNITS[unit]

    @given(st.integers(0, 2**63 - 1))
    def test_bare_bytes_come_back_as_they_are(self, number: int) -> None:
        assert settings.size(str(number)) == number

    @given(st.integers(1, 999), st.sampled_from(list(DURATION_UNITS)))
    def test_a_duration_is_its_number_times_its_unit(self, number: int, unit: str) -> None:
        assert settings.duration(f"{number}{unit}") == number * DURATION_UNITS[unit]

    @given(st.integers(0, 99), st.integers(0, 2**50))
    def test_a_share_is_never_more_than_the_whole_nor_less_than_said(
        self, percent: int, total: int
    ) -> None:
        part = Share(percent).of(total)
        assert part <= total
        assert part * 100 >= total * percent

    @given(st.sampled_from(list(SECTIONS)), st.data(), st.text(max_size=30))
    def test_any_value_is_taken_or_refused_in_one_line(
        self, section: str, data: st.DataObject, value: str
    ) -> None:
        key = data.draw(st.sampled_from(list(keys(section))))
        told = ["f:1: none"]
        try:
            assert isinstance(parse(f"[{section}]\n{key} = {value}\n", "f"), Config)
        except Misconfigured as error:
            told = list(error.mistakes)
        assert told
        assert all(re.fullmatch(r"f:\d+: .+", line) for line in told)

    @given(
        st.sampled_from(["tcp", "tcp6"]),
        st.integers(0, 65535),
        st.sampled_from(["", ":interface=127.0.0.1", ":backlog=5", ":interface=\\:\\:1"]),
        st.booleans(),
    )
    def test_an_endpoint_that_is_taken_is_one_for_twisted(
        self, kind: str, port: int, more: str, named: bool
    ) -> None:
        text = f"{kind}:{'port=' if named else ''}{port}{more}"
        serverFromString(MemoryReactor(), settings.endpoint(text))
        serverFromString(MemoryReactor(), settings.announced_endpoint(f"haproxy:{text}"))
