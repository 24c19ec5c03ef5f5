"""The client's configuration: the files of both generations, merged.

Read in this order, later files win: ``/etc/repoman/repoman.conf``, the file
that ``$REPOMAN_CLIENT_CONFIG`` names, ``~/.repoman/repoman.conf``.
"""

from __future__ import annotations

import configparser
import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, fields_dict, frozen

from repoman.client.sudo import believed_owners, sudo_caller
from repoman.errors import Misconfigured

SYSTEM_FILE = Path("/etc/repoman/repoman.conf")
"""The configuration of everybody on this machine."""

CONFIG_VARIABLE = "REPOMAN_CLIENT_CONFIG"
"""The environment variable that names one more configuration file."""

DEFAULT_PORT = 8443
"""The port of a server whose port nobody named."""

KEYS: Mapping[str, tuple[str, str]] = {
    "repository": ("Repository", "repository"),
    "port": ("Repository", "port"),
    "proxy_cert": ("User", "proxy_cert"),
    "logging": ("Logger", "enabled"),
    "log_directory": ("Logger", "dir"),
    "log_level": ("Logger", "level"),
    "snapshot_directory": ("ThisImage", "snapshot_dir"),
    "lockfile": ("ThisImage", "lockfile"),
    "snapshot": ("ThisImage", "snapshot"),
    "mountpoint": ("ThisImage", "mountpoint"),
    "system_excludes": ("ThisImage", "system_excludes"),
    "user_excludes": ("ThisImage", "user_excludes"),
}
"""Each setting with its section and key of 2012."""

KEYS_OF_2011: Mapping[str, str] = {
    "repository_host": "repository",
    "repository_port": "port",
    "user_proxy_cert": "proxy_cert",
    "exclude_dirs": "user_excludes",
    "logging_enabled": "logging",
    "logging_dir": "log_directory",
}
"""Each key of 2011, in whatever section it stands, with its setting."""


@frozen
class Settings:
    """What the configuration files say.

    :ivar repository: the server's host name; empty if no file names one.
    :ivar proxy_cert: the proxy's file; empty: look in the usual places.
    :ivar snapshot: the image file of ``save``; see :meth:`place`.
    :ivar sources: the files that were read, in the order of reading.
    :ivar of_caller: what root, under sudo, has from files that are not root's: by names.
    """

    repository: str = ""
    port: int = DEFAULT_PORT
    proxy_cert: str = ""
    logging: bool = False
    log_directory: str = "~/.repoman/logs"
    log_level: str = "INFO"
    snapshot_directory: str = "/var/tmp/repoman"  # noqa: S108 -- "save" makes it with mode 0700
    lockfile: str = "save.lock"
    snapshot: str = "snapshot.img"
    mountpoint: str = "mnt"
    system_excludes: str = "/dev/* /media/* /mnt/* /proc/* /run/* /sys/* /tmp/*"
    user_excludes: str = ""
    sources: tuple[Path, ...] = ()
    of_caller: frozenset[str] = frozenset()

    def place(self, name: str) -> Path:
        """Where ``lockfile``, ``snapshot`` or ``mountpoint`` is: by itself in ``snapshot_dir``."""
        return Path(self.snapshot_directory, name)


def expanded(text: str) -> Path:
    """A path, its ``~`` as the shell has it: of an account that there is not, a name as any."""
    # Path.expanduser() raises RuntimeError instead.
    return Path(os.path.expanduser(text))


def home_of(environ: Mapping[str, str]) -> Path:
    """The home of the person at the keyboard: under sudo, of who called it."""
    caller = sudo_caller(environ)
    return Path(caller.pw_dir) if caller else _own_home(environ)


def _own_home(environ: Mapping[str, str]) -> Path:
    """Of the account that this process runs as; where cron or systemd set no ``$HOME``, too."""
    if home := environ.get("HOME"):
        return Path(home)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path("/")


def user_file(environ: Mapping[str, str]) -> Path:
    """The user's own configuration file."""
    return home_of(environ) / ".repoman" / "repoman.conf"


def state_directory(environ: Mapping[str, str]) -> Path:
    """Where this client keeps what it must remember, after the XDG base directories.

    Of the account that it runs as, also under sudo: root writes nothing into
    a place that somebody else rules, though ``sudo -E`` names it in the environment.
    """
    if sudo_caller(environ) is not None:
        environ = {}
    state = environ.get("XDG_STATE_HOME") or _own_home(environ) / ".local" / "state"
    return Path(state) / "repoman"


def read_settings(environ: Mapping[str, str], system_file: Path = SYSTEM_FILE) -> Settings:
    """Merge the configuration files that exist.

    :raises Misconfigured: the file that the environment names is missing, or
        a file holds something that cannot be read, or as root belongs to a
        stranger; all mistakes at once.
    """
    settings, mistakes, owners = Settings(), list[str](), _believed(environ)
    named = environ.get(CONFIG_VARIABLE)
    for path in (system_file, Path(named) if named else None, user_file(environ)):
        if path is None or not (path.exists() or str(path) == named):
            continue
        try:
            settings = _merged(settings, path, owners)
        except Misconfigured as problem:
            mistakes.extend(problem.mistakes)
    if mistakes:
        raise Misconfigured(mistakes)
    return settings


def _believed(environ: Mapping[str, str]) -> frozenset[int] | None:
    """As root: whose files count; a user may take a colleague's file (``None``)."""
    return believed_owners(environ) if os.geteuid() == 0 else None


def _merged(settings: Settings, path: Path, owners: frozenset[int] | None) -> Settings:
    """``settings``, overridden by what the file says."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with path.open(encoding="utf-8") as lines:
            owner = os.fstat(lines.fileno()).st_uid
            if owners is not None and owner not in owners:
                raise Misconfigured(
                    [f"{path}: belongs to another user (uid {owner}), whom root does not obey:"
                     " give it to root, or name another."]
                )  # fmt: skip
            parser.read_file(lines)
    except OSError as error:
        raise Misconfigured([f"{path}: cannot be read: {error.strerror}."]) from error
    except (configparser.Error, UnicodeDecodeError) as error:
        raise Misconfigured([f"{path}: {_file_fault(error)}."]) from error
    changes, mistakes = dict[str, Any](), list[str]()
    for name, text in _stated(parser).items():
        try:
            changes[name] = _value(name, text)
        except ValueError as error:
            mistakes.append(f"{path}: {name}: {error}")
    if mistakes:
        raise Misconfigured(mistakes)
    of_caller = settings.of_caller - changes.keys()
    if owners is not None and owner != 0:
        of_caller |= changes.keys()
    sources = (*settings.sources, path)
    return evolve(settings, **changes, sources=sources, of_caller=of_caller)


def _file_fault(error: configparser.Error | UnicodeDecodeError) -> str:
    """What is wrong with a file as a whole, in words that are not the parser's."""
    if isinstance(error, UnicodeDecodeError):
        return "it is no text in UTF-8"
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {error.lineno}: a section, such as [Repository], must stand above it"
    if isinstance(error, configparser.DuplicateOptionError):
        return f"line {error.lineno}: {error.option} stands twice in section [{error.section}]"
    if isinstance(error, configparser.DuplicateSectionError):
        return f"line {error.lineno}: the section [{error.section}] stands twice"
    if isinstance(error, configparser.ParsingError) and error.errors:
        return f"line {error.errors[0][0]}: it is neither a [section] nor a key with its value"
    return "it is not in the form of sections with keys"


def _stated(parser: configparser.ConfigParser) -> dict[str, str]:
    """The settings that a file states, as text; the keys of 2012 win."""
    stated = {
        setting: section[key]
        for section in parser.values()
        for key, setting in KEYS_OF_2011.items()
        if key in section
    }
    for setting, (section_name, key) in KEYS.items():
        if parser.has_option(section_name, key):
            stated[setting] = parser.get(section_name, key)
    # A value may go on in further lines; we write it in one.
    lines = {name: " ".join(map(str.strip, text.splitlines())) for name, text in stated.items()}
    return {name: text.strip() for name, text in lines.items() if text.strip()}


def _value(name: str, text: str) -> object:
    """One setting's text as its value; ValueError if it is none."""
    default = fields_dict(Settings)[name].default
    if isinstance(default, bool):
        states = configparser.ConfigParser.BOOLEAN_STATES
        if text.lower() not in states:
            raise ValueError(f"say true or false, not {text!r}.")
        return states[text.lower()]
    return read_port(text) if isinstance(default, int) else text


def read_port(text: str) -> int:
    """A port number; ValueError if it is none."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ValueError(f"a port is a number from 1 to 65535, not {text!r}.")
    return int(text)


def file_text(settings: Settings) -> str:
    """A configuration file that says what ``settings`` say, in the form of 2012."""
    sections: dict[str, list[str]] = {}
    for name, (section, key) in KEYS.items():
        value = getattr(settings, name)
        text = str(value).lower() if isinstance(value, bool) else str(value)
        sections.setdefault(section, []).append(f"{key}: {text}".rstrip())
    return (
        "\n\n".join("\n".join([f"[{section}]", *lines]) for section, lines in sections.items())
        + "\n"
    )
