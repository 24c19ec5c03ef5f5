"""How one value of a configuration is read: text in, value out.

Each reader raises :class:`ValueError` with a sentence for a person, which says
what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, get_args
from urllib.parse import urlsplit

from attrs import frozen

T = TypeVar("T")
Reader = Callable[[str], T]
"""Text to value; ValueError if it is not one."""

SIZE_UNITS: Final = {
    unit: 1024**power for power, unit in enumerate(["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}
"""Bytes per unit."""

DURATION_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
"""Seconds per unit."""

MOST_PROCESSES: Final = 64
"""More workers than that are a mistake, or want another machine."""

_PORT_SETTINGS = {"port", "interface", "backlog"}
ENDPOINT_SETTINGS: Final = {
    "tcp": _PORT_SETTINGS,
    "tcp6": _PORT_SETTINGS,
    "unix": {"address", "mode", "backlog", "lockfile"},
    "systemd": {"domain", "index", "name"},
}
"""The kinds of endpoint that we listen on, and what Twisted lets one say about each."""

_FIRST = {"tcp": "port", "tcp6": "port", "unix": "address", "systemd": "domain"}


@frozen
class Share:
    """A part of a whole, in percent."""

    percent: int

    def of(self, total: int) -> int:
        """Bytes of a ``total`` in bytes, rounded up."""
        return -(-total * self.percent // 100)


@frozen
class Amount:
    """A fixed number of bytes, whatever the whole."""

    size: int

    def of(self, total: int) -> int:
        """The same bytes of any ``total``."""
        return self.size


def text(value: str) -> str:
    """Anything but nothing."""
    if not value:
        raise ValueError("must not be empty")
    return value


def optional(read: Reader[T]) -> Reader[T | None]:
    """Let an empty value mean ``None``."""

    def read_or_none(value: str) -> T | None:
        return read(value) if value else None

    return read_or_none


def choice(words: Any) -> Reader[Any]:
    """Read one of the words of a ``Literal`` type."""
    allowed = get_args(words)

    def read(value: str) -> Any:
        if value not in allowed:
            raise ValueError(f"{value!r} is not one of {', '.join(allowed)}")
        return value

    return read


def yes_or_no(value: str) -> bool:
    """Read ``yes`` or ``no``, and no other word: a guess at trust settings helps nobody."""
    if value not in ("yes", "no"):
        raise ValueError(f"{value!r} is neither yes nor no")
    return value == "yes"


def count(value: str) -> int:
    """Read a whole number from 1."""
    if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) < 1:
        raise ValueError(f"{value!r} is not a whole number from 1 to 999999999")
    return int(value)


def processes(value: str) -> int:
    """Read a number of processes."""
    if not re.fullmatch(r"[0-9]{1,2}", value) or not 1 <= int(value) <= MOST_PROCESSES:
        raise ValueError(f"{value!r} is not a whole number from 1 to {MOST_PROCESSES}")
    return int(value)


def _with_unit(value: str, units: dict[str, int], bare: str) -> int | None:
    number = re.fullmatch(r"([0-9]{1,19}) ?([A-Za-z]*)", value)
    if number is None or (number[2] or bare) not in units:
        return None
    return int(number[1]) * units[number[2] or bare]


def size(value: str) -> int:
    """Read bytes, as in ``65536``, ``8KiB`` or ``64 GiB``."""
    result = _with_unit(value, SIZE_UNITS, "B")
    # PostgreSQL's bigint holds it.
    if result is None or result >= 2**63:
        units = " ".join(SIZE_UNITS)
        raise ValueError(f"{value!r} is not a size such as 65536, 8KiB or 64GiB (units: {units})")
    return result


def duration(value: str) -> int:
    """Read seconds, at least one, as in ``300``, ``5m`` or ``7d``."""
    result = _with_unit(value, DURATION_UNITS, "s")
    if not result or result > 10**9:
        raise ValueError(
            f"{value!r} is not a time such as 300, 5m or 7d"
            f" (units: {' '.join(DURATION_UNITS)}; from 1 second to 30 years)"
        )
    return result


def share_or_size(value: str) -> Share | Amount:
    """Read ``5%``, or a size."""
    if percent := re.fullmatch(r"([0-9]{1,2}) ?%", value):
        return Share(int(percent[1]))
    try:
        return Amount(size(value))
    except ValueError:
        raise ValueError(
            f"{value!r} is neither a share from 0% to 99% nor a size such as 20GiB"
        ) from None


def path(value: str) -> Path:
    """Read a path, absolute or not."""
    if "\0" in value:
        raise ValueError("a path holds no NUL")
    return Path(text(value))


def absolute_path(value: str) -> Path:
    """Read a path that does not depend on where the daemon was started."""
    result = path(value)
    if not result.is_absolute():
        raise ValueError(f"{value!r} is not an absolute path")
    return result


def path_or_stdout(value: str) -> Path | None:
    """Read a path, or ``-`` as ``None``."""
    return None if value == "-" else path(value)


def origin(*schemes: str) -> Reader[str]:
    """Read the part of a URL that is before the path; a slash at the end is dropped."""

    def read(value: str) -> str:
        try:
            parts = urlsplit(value)
            # .port raises on one that is no number, or too large.
            plain = parts.port != 0 and not (parts.query or parts.fragment or parts.username)
        except ValueError:
            plain = False
            parts = urlsplit("")
        if not plain or parts.scheme not in schemes or not parts.hostname or parts.path.strip("/"):
            known = " or ".join(f"{scheme}://host[:port]" for scheme in schemes)
            raise ValueError(f"{value!r} is not a URL of the form {known}")
        return f"{parts.scheme}://{parts.netloc}"

    return read


def bucket(value: str) -> str:
    """Read the name of a bucket, as every object store takes it."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value):
        raise ValueError(
            f"{value!r} is not the name of a bucket: 3 to 63 of a-z 0-9 . -, no mark at its ends"
        )
    return value


def key_prefix(value: str) -> str:
    """Read how keys begin; only with characters that need no escape anywhere."""
    if value and not re.fullmatch(r"([A-Za-z0-9_-][A-Za-z0-9._-]*/)+", value):
        raise ValueError(
            f"{value!r} is not a prefix such as images/ (of A-Z a-z 0-9 . _ -, a slash at its end)"
        )
    return value


def part_size(value: str) -> int:
    """Read the size of a part of a multipart upload: from 5 MiB to 64 MiB."""
    result = size(value)
    if not 5 * 1024**2 <= result <= 64 * 1024**2:
        # Stores take 1 GiB and more; but whoever resumes digests what is kept of one in one turn.
        raise ValueError(f"{value!r} is not from 5MiB, the least of object stores, to 64MiB")
    return result


def endpoint(value: str) -> str:
    """Read an endpoint string of Twisted's; only its form is judged, nothing is opened."""
    kind, *rest = re.split(r"(?<!\\):", text(value))
    if kind == "ssl":
        raise ValueError("TLS is put on the endpoint by Repoman itself; write tcp:... for ssl:...")
    if kind not in ENDPOINT_SETTINGS:
        kinds = ", ".join(f"{known}:" for known in ENDPOINT_SETTINGS)
        raise ValueError(f"{value!r} is not an endpoint; it begins with one of {kinds}")
    given = _endpoint_settings(kind, rest)
    if unknown := given.keys() - ENDPOINT_SETTINGS[kind]:
        raise ValueError(
            f"{value!r} says {', '.join(sorted(unknown))};"
            f" {kind}: takes {', '.join(sorted(ENDPOINT_SETTINGS[kind]))}"
        )
    if not given.get(_FIRST[kind]):
        raise ValueError(f"{value!r} has no {_FIRST[kind]}; write {kind}:{_FIRST[kind]}=...")
    port = given.get("port", "0")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"{value!r}: the port {port!r} is not a number from 0 to 65535")
    return value


PROXIED: Final = "haproxy:"
"""Before an endpoint: who connects there speaks the PROXY protocol, as in Twisted's own strings."""


def announced_endpoint(value: str) -> str:
    """Read an endpoint string that may begin with ``haproxy:``."""
    endpoint(value.removeprefix(PROXIED))
    return value


def _endpoint_settings(kind: str, parts: list[str]) -> dict[str, str]:
    """Name the parts of an endpoint string: the first may come without its name."""
    given = {}
    for position, part in enumerate(parts):
        name, equals, content = part.partition("=")
        if equals:
            given[name] = content
        elif position == 0:
            given[_FIRST[kind]] = part
        else:
            given[part] = ""
    return given
