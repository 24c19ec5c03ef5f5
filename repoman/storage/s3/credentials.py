"""The key by which an object store knows us."""

from __future__ import annotations

import os
from collections.abc import Mapping
from configparser import ConfigParser, Error
from pathlib import Path

from attrs import field, frozen

from repoman.errors import Misconfigured

NAMES = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
"""What a file says under ``[default]``, and in capitals the environment: the last may be absent."""


@frozen
class Credentials:
    """A key and its secret, in the shape that botocore signs with."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


def read_credentials(path: Path | None, environment: Mapping[str, str]) -> Credentials:
    """Read them from a file as AWS's tools have it, or without one from the environment.

    :raises Misconfigured: they are not there, or others may read them.
    """
    if path is None:
        found: Mapping[str, str] = {name: environment.get(name.upper(), "") for name in NAMES}
        where = f"the environment says no {NAMES[0].upper()} and {NAMES[1].upper()}"
    else:
        found = _of_file(path)
        where = f"{path} says no {NAMES[0]} and {NAMES[1]} under [default]"
    access, secret, token = (found.get(name, "") for name in NAMES)
    if not access or not secret:
        raise Misconfigured([f"[storage] credentials: {where}"])
    return Credentials(access, secret, token or None)


def _of_file(path: Path) -> Mapping[str, str]:
    try:
        with path.open(encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise Misconfigured(
                    [f"[storage] credentials: {path} can be read by others; run: chmod 600 {path}"]
                )
            # No interpolation: secrets hold percent signs.
            parser = ConfigParser(interpolation=None)
            parser.read_file(file)
    except (OSError, UnicodeDecodeError, Error) as error:
        # Not the error's words: they may quote a line, and with it the secret.
        why = error.strerror if isinstance(error, OSError) else "it is not as AWS's tools have it"
        raise Misconfigured([f"[storage] credentials: {path} cannot be read: {why}"]) from None
    return parser["default"] if parser.has_section("default") else {}
