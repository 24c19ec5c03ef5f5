"""What an operator should mend about trust, found without starting the daemon."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from attrs import frozen

from repoman.config import Config, Storage
from repoman.errors import RepomanError
from repoman.gsi.ca_directory import CADirectory, build, files_about
from repoman.gsi.ca_files import read_files
from repoman.gsi.credential import read_host_credential
from repoman.gsi.host import host_faults, proves_name, refusal_of_server
from repoman.gsi.quietly import quietly
from repoman.gsi.steps import finish
from repoman.gsi.trust import Trust
from repoman.tls import ServerTLS, TlsSettings

SLACK: Final = timedelta(minutes=1)
"""How far a file may come from the future: clocks of file servers differ a little."""

UNSYNCHRONIZED: Final = 5
"""What adjtimex(2) answers when nothing keeps the clock right (TIME_ERROR)."""


def tls_settings(config: Config) -> TlsSettings:
    """What the TLS layer is told."""
    tls = config.tls
    return TlsSettings(
        certificate=tls.certificate,
        key=tls.key,
        ca_directory=tls.ca_directory,
        crl=tls.crl,
        signing_policy=tls.signing_policy,
        legacy_proxies=tls.legacy_proxies,
    )


@frozen
class Inspection:
    """What was found.

    :ivar faults: to be mended: about this host, a line each.
    :ivar notes: about others, a line each: an authority far away whose CRL has expired.
    :ivar starts: the daemon would start with it.
    """

    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    starts: bool = True


def inspect_trust(config: Config, now: datetime) -> Inspection:
    """Look at the host certificate, its key, the CA directory, CRLs and the clock.

    Every look is taken, whatever the others find.

    :param now: aware, UTC.
    """
    stops, loaded = _seen(lambda: ServerTLS(tls_settings(config), lambda: now).load())
    found = [*stops, *loaded]
    for look in (_host, _authorities, _permissions, _clock):
        failed, lines = _seen(partial(look, config, now))
        found += (*failed, *lines)
    _, far = _seen(lambda: _about_others(config, now))
    told = dict.fromkeys(found)
    return Inspection(
        tuple(line for line in told if line not in far),
        tuple(line for line in told if line in far),
        starts=not stops,
    )


@quietly()
def _seen(look: Callable[[], Iterable[str]]) -> tuple[list[str], list[str]]:
    """Why a look could not be taken, and what it showed."""
    try:
        return [], list(look())
    except RepomanError as error:
        return [error.message], []
    except OSError as error:
        return [f"{error.filename} cannot be looked at: {error.strerror}."], []
    except Exception as error:  # odd certificates raise anything
        return [f"The certificates could not be judged ({type(error).__name__})."], []


def _host(config: Config, now: datetime) -> Iterator[str]:
    tls = config.tls
    host = read_host_credential(tls.certificate, tls.key)
    yield from host_faults(host, tls.certificate, tls.key, now)
    name = urlsplit(config.server.url).hostname if config.server.url else None
    if name and not proves_name(host.certificate, name):
        yield f"{tls.certificate} is not for {name}, which [server] url names: clients refuse it."
    directory, chain = _directory(tls.ca_directory), (host.certificate, *host.chain)
    issuers = [
        authority.certificate
        for authority in directory.authorities
        if authority.subject == chain[-1].issuer and authority.certificate != chain[-1]
    ]
    refusals = [
        refusal_of_server((*chain, issuer), tls.ca_directory, directory, now) for issuer in issuers
    ]
    if refusals and all(refusals):
        yield f"{tls.certificate} is refused by clients: {refusals[0]}"


def _authorities(config: Config, now: datetime) -> list[str]:
    return _faults(config, _directory(config.tls.ca_directory), now)


def _faults(config: Config, directory: CADirectory, now: datetime) -> list[str]:
    tls = config.tls
    return Trust(directory, tls.crl, tls.signing_policy).faults(now)


def _about_others(config: Config, now: datetime) -> list[str]:
    """What the CA directory says that is nothing to this host's certificate."""
    tls = config.tls
    host, files = read_host_credential(tls.certificate, tls.key), read_files(tls.ca_directory)
    directory = finish(build(files))
    own = finish(build(files_about((host.certificate, *host.chain), files, directory)))
    mine = _faults(config, own, now)
    return [line for line in _faults(config, directory, now) if line not in mine]


def _permissions(config: Config, now: datetime) -> Iterator[str]:
    tls = config.tls
    for path in (tls.ca_directory, tls.certificate, tls.key):
        for one in (path, path.parent):
            if one.exists() and one.stat().st_mode & 0o1002 == 0o002:
                yield f"{one} can be changed by anybody here; run: chmod o-w {one}"


def _directory(place: Path) -> CADirectory:
    return finish(build(read_files(place)))


def _clock(config: Config, now: datetime) -> Iterator[str]:
    for path in filter(Path.exists, (config.tls.ca_directory, config.tls.certificate)):
        written = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
        if written > now + SLACK:
            yield (
                f"The clock says {now:%Y-%m-%d %H:%M} UTC, but {path} was written at"
                f" {written:%Y-%m-%d %H:%M}: one of them is wrong."
            )


def remark_on_clock(adjtimex: Callable[[], int] | None = None) -> str:
    """What the kernel says of the clock; empty if something keeps it right.

    No fault: in a virtual machine the host may keep it.
    """
    if (adjtimex or _adjtimex)() != UNSYNCHRONIZED:
        return ""
    return (
        "The kernel knows of nothing that keeps the clock right: run chrony or another NTP client."
    )


def remark_on_redirect(storage: Storage) -> str:
    """Why downloads do not go where ``[storage] redirect`` lets them; empty if they do."""
    if storage.redirect == "no":
        return ""
    if storage.backend == "directory":
        return "[storage] redirect: a directory has no addresses, so we serve all downloads."
    if not (storage.endpoint or "").startswith("https:"):
        return (
            "[storage] redirect: the endpoint is not https, so we serve all downloads over TLS"
            " ourselves."
        )
    return ""


def _adjtimex() -> int:
    # struct timex is some 200 bytes; with modes = 0 nothing is set.
    return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(1024)))
