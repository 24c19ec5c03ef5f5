"""The manual page and the completions: current, shipped, and understood by those who read them."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from repoman.cli import manpage, shells
from repoman.cli.options import command_parser
from repoman.cli.table import COMMANDS
from tests.cli.conftest import ROOT

SHIPPED = {
    "share/man/man1/repoman.1": manpage.page,
    "share/bash-completion/completions/repoman": shells.bash,
    "share/zsh/site-functions/_repoman": shells.zsh,
    "share/fish/vendor_completions.d/repoman.fish": shells.fish,
}


@pytest.mark.parametrize("path", SHIPPED)
def test_what_is_shipped_is_current(path: str) -> None:
    assert (ROOT / path).read_text() == SHIPPED[path](COMMANDS), "run: make share"
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "setup.cfg")
    assert path in metadata["options.data_files"][str(Path(path).parent)].split()


def test_every_command_has_its_place_and_an_example() -> None:
    page = manpage.page(COMMANDS)
    for command in COMMANDS:
        assert f".SS {command.name}".replace("-", "\\-") in page
        assert command.examples, command.name
        for option in shells.options_of(command_parser(command).known):
            assert option.help, (command.name, option)


def run(*words: str, **options: Any) -> str:
    if not shutil.which(words[0]):
        pytest.skip(f"{words[0]} is not installed")
    done = subprocess.run(words, capture_output=True, text=True, **options)
    assert (done.returncode, done.stderr) == (0, ""), done
    return str(done.stdout)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("repoman descr", {"describe-image", "describe-user", "describe-group"}),
        ("repoman -H there put-i", {"put-image"}),
        ("repoman get --de", {"--dest"}),
        ("repoman get --dest shar", {"share"}),
        ("repoman put shar", {"share"}),
        ("repoman help doc", {"doctor"}),
    ],
)
def test_bash_completes(line: str, found: set[str]) -> None:
    words = line.split(" ")
    script = (
        f"{shells.bash(COMMANDS)}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}\n"
        '_repoman; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert set(run("bash", "-c", script, cwd=str(ROOT)).split()) == found


def test_zsh_completes(tmp_path: Path) -> None:
    (tmp_path / "_repoman").write_text(shells.zsh(COMMANDS))
    run("zsh", "-n", str(tmp_path / "_repoman"))
    # zsh completes only at a prompt: give it one.
    script = """
        zmodload zsh/zpty
        zpty z zsh -f -i
        zpty -w z "PS1=; fpath=($1 \\$fpath); autoload -U compinit; compinit -u -d $1/dump"
        zpty -w z 'repoman descri'$'\\t'$'\\t'
        zpty -r z out '*describe-user*'; print -r -- $out
    """
    out = run("zsh", "-f", "-c", script, "zsh", str(tmp_path), timeout=60)
    assert "describe-user" in out


def test_fish_completes(tmp_path: Path) -> None:
    (tmp_path / "repoman.fish").write_text(shells.fish(COMMANDS))
    script = f"source {tmp_path}/repoman.fish; complete -C"
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    commands = run("fish", "-c", f"{script} 'repoman descr'", env=environment)
    assert {line.split("\t")[0] for line in commands.splitlines()} == {
        "describe-image", "describe-user", "describe-group"
    }  # fmt: skip
    assert "--dest" in run("fish", "-c", f"{script} 'repoman get --d'", env=environment)


def test_man_reads_the_page(tmp_path: Path) -> None:
    (tmp_path / "repoman.1").write_text(manpage.page(COMMANDS))
    text = run("man", "-l", str(tmp_path / "repoman.1"))
    assert "Download the specified image file." in text
