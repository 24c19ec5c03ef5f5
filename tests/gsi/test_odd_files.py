"""No file of a CA directory costs more than itself, whatever is wrong with it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from repoman.gsi.ca_directory import CADirectory, build, read_authorities, read_files
from repoman.gsi.host import refusal_of_server
from repoman.gsi.steps import finish
from repoman.gsi.trust import Trust
from tests.credentials import Grid, authority, host, now
from tests.odd_files import ALL, IGTF


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    return Grid(tmp_path)


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """A warning of a library would be printed, or raise, as the environment likes."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def trust(grid: Grid) -> Trust:
    return Trust(finish(build(read_files(grid.directory.path))))


@pytest.mark.parametrize("what", ALL)
def test_an_odd_file_costs_no_more_than_itself(grid: Grid, what: str) -> None:
    user, server = grid.user(), host(grid.ca, "localhost")
    odd, place = ALL[what], grid.directory.path
    name = odd.into(grid)
    before = trust(grid)
    assert before.judge(user.proxy().path, now()).identity
    told = before.faults(now())
    assert all(line.isprintable() for line in told)
    assert len([line for line in told if f"{name} " in line]) == odd.told, told
    assert len(told) == odd.told
    # The client, which reads only the certificates at first.
    assert not refusal_of_server(server.path, place, read_authorities(place), now())
    grid.revoke(user, server)
    assert trust(grid).judge(user.proxy().path, now()).identity is None
    assert "revoked" in refusal_of_server(server.path, place, read_authorities(place), now())


def test_what_is_said_of_a_file_is_short_and_one_line(grid: Grid) -> None:
    content = "access_id_CA X509 '" + "x\u202e\x1b[31m" * 500 + "'"
    (grid.directory.path / "HASH.signing_policy").write_text(content)
    grid.directory.add(authority("/C=XX/CN=Odd"), policy=content)
    (line,) = trust(grid).faults(now())
    assert ".signing_policy has a line 1" in line
    assert line.isprintable()
    assert len(line) <= 300


def test_a_directory_that_kubernetes_mounted(grid: Grid) -> None:
    """Every file is a link through ``..data``, and a change is one change of that link."""
    place = grid.directory.path
    real = place / "..2026_11_27_10_00.123"
    real.mkdir()
    (place / "..data").symlink_to(real.name)
    for path in [each for each in place.iterdir() if not each.name.startswith("..")]:
        path.rename(real / path.name)
        path.symlink_to(f"..data/{path.name}")
    assert trust(grid).judge(grid.user().proxy().path, now()).identity
    assert trust(grid).faults(now()) == []


@pytest.mark.skipif(
    not list(IGTF.glob("*.signing_policy")), reason="Debian's igtf-policy-* are not installed"
)
def test_the_real_igtf_is_quiet() -> None:
    """Only what time did to it is told."""
    directory: CADirectory = finish(build(read_files(IGTF)))
    assert len(directory.authorities) > 50
    told = Trust(directory).faults(now())
    assert [line for line in told if "expired at" not in line] == []
