"""The operator's commands, as programs, with and without a running daemon."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from repoman.errors import Misconfigured
from repoman.gridmap import read_gridmap
from repoman.operator.commands import COMMANDS
from repoman.user_records import Login
from tests.credentials import end_entity, rdn, rdns
from tests.server import ROOT, Daemon, Person


def operate(
    *arguments: str | Path, path: Path = ROOT, before: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, "-m", "repoman.operator", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, cwd="/",
        env={**os.environ, "PYTHONPATH": f"{path}:{ROOT}"}, check=False,
    )  # fmt: skip


def gridmap(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_gridmap_is_read_as_globus_writes_it(tmp_path: Path) -> None:
    file = gridmap(
        tmp_path / "grid-mapfile",
        "# people",
        "",
        '"/C=CA/O=Grid/CN=Roger Impey" impeyr',
        '  "/C=CA/O=Grid/CN=Two Names"   two,other',
        "/C=CA/CN=plain plain",
        '"/C=CA/CN=host/www.example.org/Email=a@b.c" www',
        r'"/C=CA/CN=Quoted \"Q\"" quoted',
        r'"/C=CA/CN=Zo\xC3\xab" zoe',
        r"/C=CA/CN=Z\xC3\xb6e zoee",
        '"/C=DE/postalCode=12345/street=Weg 1/CN=x" postal',
        r'"/C=CA/CN=back\\xC3" back',
    )
    logins, mistakes = read_gridmap(file)
    assert mistakes == []
    assert logins == [
        Login("impeyr", "/C=CA/O=Grid/CN=Roger Impey"),
        Login("two", "/C=CA/O=Grid/CN=Two Names"),
        Login("plain", "/C=CA/CN=plain"),
        Login("www", r"/C=CA/CN=host\/www.example.org/emailAddress=a@b.c"),
        Login("quoted", '/C=CA/CN=Quoted "Q"'),
        Login("zoe", "/C=CA/CN=Zo\xeb"),
        Login("zoee", "/C=CA/CN=Z\xf6e"),
        Login("postal", "/C=DE/2.5.4.17=12345/2.5.4.9=Weg 1/CN=x"),
        Login("back", r"/C=CA/CN=back\\xC3"),
    ]


def test_every_mistake_in_a_gridmap_is_told(tmp_path: Path) -> None:
    file = gridmap(
        tmp_path / "map",
        '"/C=CA/CN=x" .pool', "nonsense", '"CN=x" x', '"/CN=ok" ok',
        r'"/CN=M\xFCller" mueller', r'"/O=Grid/CN=a\x2FCN=b" disguised',
    )  # fmt: skip
    file.write_bytes(file.read_bytes() + b'"/CN=M\xfcller" mueller\n"/CN=last" last\n')
    logins, mistakes = read_gridmap(file)
    places = [line.split(": ")[0] for line in mistakes]
    assert places == [f"{file}:{n}" for n in (1, 2, 3, 5, 6, 7)]
    assert [login.user_name for login in logins] == ["ok", "last"]
    with pytest.raises(Misconfigured, match="cannot be read"):
        read_gridmap(tmp_path / "nothing")


def test_a_gridmap_is_imported_while_the_daemon_runs(daemon: Daemon, tmp_path: Path) -> None:
    old = daemon.newcomer()
    new, spare = daemon.person("Mapped One"), daemon.person("Mapped Spare")
    file = gridmap(
        tmp_path / "map",
        f'"{new.dn}" mapped',
        f'"{spare.dn}" {old.name}',
        f'"{old.dn}" {old.name}',
    )
    done = operate("import-gridmap", "-c", daemon.config, file)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout.endswith("2 of 3 logins are new; 0 could not be.\n")
    assert new.ask("GET", "/api/whoami").json["user_name"] == "mapped"
    assert spare.ask("GET", "/api/whoami").json["client_dn"] == old.dn
    again = operate("import-gridmap", "-c", daemon.config, file)
    assert again.stdout == "0 of 3 logins are new; 0 could not be.\n"


def test_what_cannot_be_imported_is_said_and_the_rest_done(daemon: Daemon, tmp_path: Path) -> None:
    person = daemon.person("Mapped Late")
    file = gridmap(
        tmp_path / "map", f'"{daemon.admin.dn}" burglar', '"/CN=new" kvm', f'"{person.dn}" late'
    )
    done = operate("import-gridmap", "-c", daemon.config, file)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2
    assert person.ask("GET", "/api/whoami").json["user_name"] == "late"
    assert daemon.admin.ask("GET", "/api/users/burglar").status == 404


def test_a_gridmap_is_imported_while_no_daemon_runs(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    person = daemon.person("Early Bird")
    file = gridmap(tmp_path / "map", f'"{person.dn}" early')
    done = operate("import-gridmap", "-c", daemon.config, file)
    assert (done.returncode, done.stderr) == (0, ""), done
    with daemon.running():
        assert person.ask("GET", "/api/whoami").json["user_name"] == "early"


def test_a_bad_line_of_a_gridmap_costs_nothing_but_itself(daemon: Daemon, tmp_path: Path) -> None:
    file = gridmap(tmp_path / "map", '"/CN=fine" fine', "nonsense", '"/CN=too" finetoo')
    done = operate("import-gridmap", "-c", daemon.config, file)
    assert done.returncode == 1
    assert done.stderr == f'{file}:2: A line is "DN" user.\n'
    assert done.stdout.endswith("2 of 3 logins are new; 1 could not be.\n")
    for name in ("fine", "finetoo"):
        assert daemon.admin.ask("GET", f"/api/users/{name}").status == 200
    missing = operate("import-gridmap", "-c", daemon.config, tmp_path / "nothing")
    assert (missing.returncode, len(missing.stderr.splitlines())) == (1, 1)


def test_the_dn_of_a_403_can_be_copied_as_it_stands(daemon: Daemon, tmp_path: Path) -> None:
    """Whatever a CA wrote: what the refusal shows is what an administrator registers."""
    subject = (
        rdns("/C=CA/O=Grid")
        + rdn(("2.5.4.17", "12345"), ("OU", "a+b"))
        + rdn(("CN", r"J\xC3\xBCrgen/CN=x/\u017ft=\u00fc"))
    )
    user = end_entity(subject, daemon.grid.ca)
    stranger = Person(daemon, "", "", user.proxy().write(tmp_path / "proxy"), user)
    refused = stranger.ask("GET", "/api/whoami")
    assert refused.status == 403
    assert "it can be copied as it stands" in refused.text
    dn = refused.text.partition("registered here as ")[2].partition(" (issued by")[0]
    made = daemon.admin.ask("POST", "/api/users", json={"user_name": "odd", "cert_dn": dn})
    assert made.json["client_dn"] == dn
    assert stranger.ask("GET", "/api/whoami").json["user_name"] == "odd"


def test_the_configuration_is_checked_and_shown(daemon: Daemon, tmp_path: Path) -> None:
    assert operate("check-config", "-c", daemon.config).returncode == 0
    bad = tmp_path / "bad.conf"
    bad.write_text("[server]\nport = 1\n")
    refused = operate("check-config", "-c", bad)
    assert refused.returncode == 1
    assert "bad.conf:2" in refused.stderr
    sample = operate("sample-config")
    assert sample.stdout == (ROOT / "etc" / "repoman.conf").read_text()
    assert operate("fly").returncode == 2


def test_everything_is_made_before_the_first_start(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    done = operate("init", "-c", daemon.config)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert f"Administrator {daemon.admin.name} created." in done.stdout
    assert (tmp_path / "state" / "blobs" / "REPO_ID").exists()
    again = operate("init", "-c", daemon.config)
    assert again.returncode == 0
    assert "created" not in again.stdout
    with daemon.running():
        assert daemon.admin.ask("GET", "/api/whoami").status == 200
        assert operate("init", "-c", daemon.config).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a directory away")
def test_root_leaves_no_files_that_the_daemon_cannot_use(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    (tmp_path / "state").mkdir()
    shutil.chown(tmp_path / "state", "nobody")
    done = operate("init", "-c", daemon.config)
    assert done.returncode == 1
    assert "belongs to nobody: run this by runuser -u nobody" in done.stderr
    assert list((tmp_path / "state").iterdir()) == []


def test_a_sweep_now_removes_and_compares(tmp_path: Path) -> None:
    with Daemon(tmp_path).running() as daemon:
        daemon.admin.ask("POST", "/api/images", form={"name": "one"})
        daemon.admin.ask("PUT", "/api/images/raw/one", body=b"bytes")
        (stray := tmp_path / "state" / "blobs" / "data" / "00" / ("0" * 32)).write_bytes(b"x")
        done = operate("sweep", "-c", daemon.config)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert "1 without a record put in quarantine/" in done.stdout
        assert not stray.exists()
        assert daemon.admin.ask("GET", "/api/images/raw/one").body == b"bytes"


def test_a_scrub_now_reads_everything_and_finds_damage(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    with daemon.running():
        for name in ("one", "two"):
            daemon.admin.ask("POST", "/api/images", form={"name": name})
            daemon.admin.ask("PUT", f"/api/images/raw/{name}", body=name.encode())
    assert operate("scrub", "-c", daemon.config).stdout.startswith("2 files are right")
    blob = next((tmp_path / "state" / "blobs" / "data").glob("*/*"))
    good = blob.read_bytes()
    blob.write_bytes(b"xxx")
    done = operate("scrub", "-c", daemon.config)
    assert done.returncode == 1
    assert done.stderr == "1 files are damaged, 1 of them newly: restore them.\n"
    blob.write_bytes(good)
    done = operate("scrub", "-c", daemon.config)
    assert (done.returncode, done.stdout) == (0, "2 files are right, 1 of them again.\n")


def test_the_cache_of_plugins_is_written(tmp_path: Path) -> None:
    (tmp_path / "twisted" / "plugins").mkdir(parents=True)
    plugin = ROOT / "twisted" / "plugins" / "repoman_plugin.py"
    shutil.copy(plugin, tmp_path / "twisted" / "plugins")
    done = operate("refresh-plugins", path=tmp_path)
    assert done.returncode == 0, done
    assert (tmp_path / "twisted" / "plugins" / "dropin.cache").exists()


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    section = text.partition("## The operator's command")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([\w-]+)", section, re.MULTILINE) == list(COMMANDS)


def test_what_the_environment_says_of_another_postgresql_leads_nobody_away_from_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = {
        "PGSERVICE": "elsewhere",
        "PGHOSTADDR": "192.0.2.1",
        "PGREQUIREAUTH": "scram-sha-256",
        "PGTARGETSESSIONATTRS": "standby",
        "PGCHANNELBINDING": "require",
        "PGOPTIONS": "-c nonsense=1",
    }
    for name, value in foreign.items():
        monkeypatch.setenv(name, value)
    with Daemon(tmp_path).running() as daemon:
        assert daemon.admin.ask("GET", "/api/whoami").status == 200
        while_it_runs = operate("verify-audit", "-c", daemon.config)
    for done in (while_it_runs, operate("verify-audit", "-c", daemon.config)):
        assert done.returncode == 0, done.stderr
