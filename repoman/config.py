"""``repoman.conf`` in, a frozen :class:`Config` out; or all of its mistakes at once.

The classes below *are* the schema: a field's default text and its reader stand
together, and ``etc/repoman.conf`` is tested against them.  How a single value is
read is told in :mod:`repoman.settings`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from attrs import Attribute, evolve, field, fields, frozen

from repoman import settings
from repoman.errors import Misconfigured
from repoman.policy import Redirect
from repoman.settings import Amount, Reader, Share, optional

DEFAULT_PATH = Path("/etc/repoman.conf")
"""Where the configuration is when nobody names a file."""

Strictness = Literal["require", "if-present", "off"]
"""How much a CRL or a signing policy must be there."""

LimitedProxies = Literal["allow", "read-only", "deny"]
"""What limited proxies may do."""

Backend = Literal["directory", "s3"]
"""What keeps the bytes."""


def setting(default: str, read: Reader[Any], **options: Any) -> Any:
    """Declare one key: its default as text, and what turns text into the value."""
    return field(default=read(default), metadata={"text": default, "read": read}, **options)


@frozen
class Server:
    """``[server]``: where the service listens, how links name it, where it keeps things.

    :ivar https: Twisted endpoint string; TLS is put on it by us.  ``haproxy:`` before it:
        the PROXY protocol comes first.
    :ivar http: endpoint for public images only; ``None``: off.
    :ivar url: scheme, host and port in links; ``None``: from the host certificate.
    :ivar http_url: likewise for the plain endpoint.
    :ivar state: the directory of all that must last.
    :ivar workers: how many processes serve.
    """

    https: str = setting("tcp:8443", settings.announced_endpoint)
    http: str | None = setting("", optional(settings.announced_endpoint))
    url: str | None = setting("", optional(settings.origin("https")))
    http_url: str | None = setting("", optional(settings.origin("http", "https")))
    state: Path = setting("/var/lib/repoman", settings.absolute_path)
    workers: int = setting("1", settings.processes)


@frozen
class Tls:
    """``[tls]``: who we are and whom we believe.

    :ivar reload: seconds between looks at the CA directory and the certificate.
    """

    certificate: Path = setting("/etc/grid-security/hostcert.pem", settings.absolute_path)
    key: Path = setting("/etc/grid-security/hostkey.pem", settings.absolute_path)
    ca_directory: Path = setting("/etc/grid-security/certificates", settings.absolute_path)
    crl: Strictness = setting("if-present", settings.choice(Strictness))
    signing_policy: Strictness = setting("if-present", settings.choice(Strictness))
    limited_proxies: LimitedProxies = setting("read-only", settings.choice(LimitedProxies))
    legacy_proxies: bool = setting("no", settings.yes_or_no)
    reload: int = setting("300", settings.duration)


@frozen
class Database:
    """``[database]``.

    :ivar dsn: libpq string or URL; ``None``: a PostgreSQL of our own under ``state``.
        It may hold a password, so it is never printed.
    """

    dsn: str | None = setting("", optional(settings.text), repr=False)


@frozen
class Storage:
    """``[storage]``: where the bytes are.

    :ivar directory: absolute once loaded; text is taken as relative to ``state``.
    :ivar endpoint: of an object store that speaks S3: scheme, host and port.
    :ivar prefix: how all keys in the bucket begin.
    :ivar credentials: a file closed to others; ``None``: the environment has them.
    :ivar part_size: of multipart uploads, in bytes.
    :ivar ca_file: the CAs that vouch for the endpoint; ``None``: those of the system.
    :ivar redirect: whose downloads may go to the store for their bytes.
    """

    @property
    def place(self) -> str:
        """Which store this is, in a line."""
        if self.backend == "s3":
            return f"{self.endpoint}/{self.bucket}/{self.prefix}"
        return str(self.directory)

    backend: Backend = setting("directory", settings.choice(Backend))
    directory: Path = setting("blobs", settings.path)
    endpoint: str | None = setting("", optional(settings.origin("https", "http")))
    bucket: str | None = setting("", optional(settings.bucket))
    region: str = setting("us-east-1", settings.text)
    prefix: str = setting("", settings.key_prefix)
    credentials: Path | None = setting("", optional(settings.absolute_path))
    part_size: int = setting("16MiB", settings.part_size)
    ca_file: Path | None = setting("", optional(settings.absolute_path))
    redirect: Redirect = setting("no", settings.choice(Redirect))


@frozen
class Accounts:
    """``[accounts]``.

    :ivar admins: file of ``user_name,email,DN`` lines; ``None``: no such file.
    """

    admins: Path | None = setting("", optional(settings.absolute_path))


@frozen
class Limits:
    """``[limits]``: sizes in bytes, times in seconds.

    :ivar max_upload: the largest file.
    :ivar quota: per user who has none of their own.
    :ivar uploads: at once per user.
    :ivar partial_uploads: how long an unfinished upload is kept.
    :ivar upload_time: how long one may take, in one request and from its first to its last one.
    :ivar images: per owner.
    :ivar hypervisors: words of one owner's images that were not known from the start.
    :ivar shares: per image, with users and groups.
    :ivar refusals: of one user, in an hour, that the audit notes.
    :ivar expired_kept: how long the bytes of an expired image are kept.
    :ivar disk_reserve: what of the store's room is never given to uploads.
    :ivar min_rate: bytes per second below which a transfer is given up; 0: never.
    :ivar connections: open at once.
    """

    max_upload: int = setting("64GiB", settings.size)
    quota: int = setting("1TiB", settings.size)
    uploads: int = setting("4", settings.count)
    partial_uploads: int = setting("7d", settings.duration)
    upload_time: int = setting("14d", settings.duration)
    images: int = setting("10000", settings.count)
    hypervisors: int = setting("100", settings.count)
    shares: int = setting("1000", settings.count)
    refusals: int = setting("100", settings.count)
    expired_kept: int = setting("30d", settings.duration)
    disk_reserve: Share | Amount = setting("5%", settings.share_or_size)
    min_rate: int = setting("8KiB", settings.size)
    connections: int = setting("1000", settings.count)


@frozen
class Log:
    """``[log]``.

    :ivar access: the access log, absolute once loaded; ``None``: standard output.
    :ivar audit_kept: how long the audit is kept, in seconds.
    """

    access: Path | None = setting("log/access.log", settings.path_or_stdout)
    format: Literal["text", "json"] = setting("text", settings.choice(Literal["text", "json"]))
    audit_kept: int = setting("365d", settings.duration)


@frozen
class Metrics:
    """``[metrics]``.

    :ivar endpoint: where ``/metrics``, ``/healthz`` and ``/readyz`` are; ``None``: off.
    """

    endpoint: str | None = setting("tcp:9469:interface=127.0.0.1", optional(settings.endpoint))


@frozen
class Config:
    """All settings, each with a valid value."""

    server: Server = field(factory=Server)
    tls: Tls = field(factory=Tls)
    database: Database = field(factory=Database)
    storage: Storage = field(factory=Storage)
    accounts: Accounts = field(factory=Accounts)
    limits: Limits = field(factory=Limits)
    log: Log = field(factory=Log)
    metrics: Metrics = field(factory=Metrics)


SECTIONS: dict[str, type] = {
    section.name: type(getattr(Config(), section.name)) for section in fields(Config)
}
"""The class of each section."""


@frozen
class Mistake:
    """What is wrong with a configuration.

    :ivar line: says it to a person.
    :ivar section: what it is about; empty: it may be about any.
    """

    line: str
    section: str = ""


def keys(section: str) -> dict[str, Attribute[Any]]:
    """The declared keys of a section: name to field, in order.

    A field's metadata hold ``text``, the default as one would write it, and ``read``.
    """
    return {key.name: key for key in fields(SECTIONS[section])}


def load(path: Path | None = None) -> Config:
    """Read the configuration.

    :param path: the file; ``None`` means :data:`DEFAULT_PATH`.
    :raises Misconfigured: with every mistake found, one line each.
    """
    return _without_mistakes(*load_partly(path))


def load_partly(path: Path | None = None) -> tuple[Config, list[Mistake]]:
    """Read what can be read of the configuration.

    :returns: with the default for each setting that is wrong; and the mistakes.
    :raises Misconfigured: there is nothing to be read.
    """
    path = DEFAULT_PATH if path is None else path
    try:
        content = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise Misconfigured(
            [
                f"{path}: no such file; 'twistd repoman --print-config' prints one to begin with,"
                " and --config names it"
            ]
        ) from None
    except OSError as error:
        raise Misconfigured([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise Misconfigured([f"{path}: not UTF-8 text, at byte {error.start}"]) from None
    return _parse_partly(content, str(path))


def parse(content: str, file: str) -> Config:
    """Turn the text of a configuration into values.

    :param file: what the mistakes call the text.
    :raises Misconfigured: with every mistake found, one line each.
    """
    return _without_mistakes(*_parse_partly(content, file))


def _without_mistakes(config: Config, mistakes: list[Mistake]) -> Config:
    if mistakes:
        raise Misconfigured([mistake.line for mistake in mistakes])
    return config


def _parse_partly(content: str, file: str) -> tuple[Config, list[Mistake]]:
    mistakes: list[Mistake] = []
    wrong: list[tuple[str, str]] = []
    given: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for section, key, value, where in _settings(content, file, mistakes):
        declared, setting = keys(section), f"{where}: [{section}] {key}"
        if key not in declared:
            known = ", ".join(declared)
            mistakes.append(Mistake(f"{setting}: unknown; there are {known}", section))
        elif key in given[section]:
            mistakes.append(Mistake(f"{setting}: is there twice", section))
        else:
            try:
                given[section][key] = declared[key].metadata["read"](value)
            except ValueError as error:
                given[section][key] = None
                wrong.append((section, key))
                mistakes.append(Mistake(f"{setting}: {error}", section))
    for key in _missing(given["storage"]):
        if ("storage", key) not in wrong:
            line = f"{file}: [storage] {key}: backend = s3 needs it"
            mistakes.append(Mistake(line, "storage"))
    for section, key in wrong:
        del given[section][key]
    config = Config(**{name: SECTIONS[name](**given[name]) for name in SECTIONS})
    return _under_state(config), mistakes


def _missing(storage: dict[str, Any]) -> list[str]:
    """What an object store needs to be said and is not."""
    needed = ("endpoint", "bucket") if storage.get("backend") == "s3" else ()
    return [key for key in needed if storage.get(key) is None]


def _settings(
    content: str, file: str, mistakes: list[Mistake]
) -> Iterator[tuple[str, str, str, str]]:
    """Yield section, key, value and place of each setting under a known section.

    Not by :mod:`configparser`: it forgets the line numbers, gives up at the first
    duplicate, and takes an indented key for more of the value above it.
    """
    section = None
    for number, line in enumerate(map(str.strip, content.split("\n")), 1):
        where = f"{file}:{number}"
        key, equals, value = (part.strip() for part in line.partition("="))
        if not line or line.startswith(("#", ";")):
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
            if section not in SECTIONS:
                known = " ".join(f"[{name}]" for name in SECTIONS)
                mistakes.append(Mistake(f"{where}: [{section}]: unknown; there are {known}"))
        elif not key or not equals:
            mistakes.append(Mistake(f"{where}: neither a [section] nor key = value"))
        elif section is None:
            mistakes.append(Mistake(f"{where}: {key}: stands before the first [section]"))
        elif section in SECTIONS:
            yield section, key, value, where


def _under_state(config: Config) -> Config:
    """Make the paths that hang under ``state`` absolute."""
    state = config.server.state
    access = config.log.access
    return evolve(
        config,
        storage=evolve(config.storage, directory=state / config.storage.directory),
        log=evolve(config.log, access=access and state / access),
    )


RELOADABLE = frozenset({"limits", "log"})
"""The sections whose settings can change while the daemon runs."""


def waiting_for_restart(running: Config, fresh: Config) -> list[str]:
    """The settings that have changed, but cannot before a restart: ``[section] key``."""
    return [
        f"[{section}] {key}"
        for section in SECTIONS
        if section not in RELOADABLE
        for key in keys(section)
        if getattr(getattr(running, section), key) != getattr(getattr(fresh, section), key)
    ]
