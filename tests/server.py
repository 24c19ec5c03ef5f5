"""The real daemon for tests: a grid, a PostgreSQL of its own, and people with proxies.

The fixture ``daemon`` (session scope, in ``tests/conftest.py``) is one that runs
for all tests, so a test makes users, groups and images of its own::

    def test_something(daemon):
        alice = daemon.newcomer()                          # a registered user with a proxy
        answer = alice.ask("POST", "/api/images", form={"name": "one"})
        assert answer.status == 201
        daemon.admin.ask("GET", f"/api/users/{alice.name}").json["images"]
        daemon.nobody.ask("GET", "/api/whoami").status     # no certificate
        daemon.stranger("Mallory").ask(...)                # a proxy that nobody knows
        subprocess.run(["curl", *alice.curl, daemon.url + "/api/whoami"])

A test that stops, kills or configures its daemon makes one::

    with Daemon(tmp_path, limits={"quota": "1MiB"}).running() as daemon: ...
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode, urlsplit

import pytest
from attrs import define, field, frozen
from psycopg2.extensions import make_dsn

from tests.credentials import Credential, Grid, p256_key

ROOT = Path(__file__).parents[1]
START_SECONDS = 90
STOP_SECONDS = 30
ADMIN = "impeyr"

_numbers = itertools.count(1)


@frozen
class Answer:
    """What the server said."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        assert "json" in self.headers["Content-Type"], self
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


@define
class Person:
    """Somebody at the other end of a kept connection.

    :ivar name: the user's; empty for somebody who has no account.
    :ivar dn: their end entity's; empty without a certificate.
    :ivar proxy: their proxy file; ``None`` without a certificate.
    """

    daemon: Daemon
    name: str = ""
    dn: str = ""
    proxy: Path | None = None
    credential: Credential | None = None
    _connection: http.client.HTTPSConnection | None = field(default=None, repr=False)

    def ask(
        self,
        method: str,
        target: str,
        *,
        form: Mapping[str, Any] | None = None,
        json: Any = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Answer:
        """Make one request, of a path or of one of our URLs, and read the answer."""
        headers = dict(headers or {})
        if form is not None:
            body = urlencode({k: str(v) for k, v in form.items()})
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        elif json is not None:
            body = _dumps(json)
            headers.setdefault("Content-Type", "application/json")
        target = target.removeprefix(self.daemon.url)
        fresh = self._connection is None
        try:
            return self._send(method, target, body, headers, **options)
        except (ConnectionError, http.client.HTTPException, ssl.SSLError):
            self.hang_up()
            if fresh:
                raise
        return self._send(method, target, body, headers, **options)  # it had been closed

    def _send(
        self, method: str, target: str, body: Any, headers: Mapping[str, str], **options: Any
    ) -> Answer:
        if self._connection is None:
            self._connection = self.connection()
        self._connection.request(method, target, body, headers, **options)
        response = self._connection.getresponse()
        content = response.read()
        if response.will_close:
            self.hang_up()
        answered = {k.title(): v for k, v in response.getheaders()}
        return Answer(response.status, response.reason, answered, content)

    def connection(self) -> http.client.HTTPSConnection:
        """Open a connection of their own, for what :meth:`ask` cannot do."""
        return http.client.HTTPSConnection(
            "localhost", self.daemon.https, context=self.tls, timeout=60
        )

    @property
    def tls(self) -> ssl.SSLContext:
        """What they show and whom they trust."""
        context = ssl.create_default_context(capath=str(self.daemon.ca_directory))
        if self.proxy is not None:
            context.load_cert_chain(self.proxy)
        return context

    def hang_up(self) -> None:
        """Close the kept connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def curl(self) -> list[str]:
        """The options with which curl comes as this person."""
        shown = ["--cert", str(self.proxy), "--key", str(self.proxy)] if self.proxy else []
        return ["--silent", "--show-error", "--capath", str(self.daemon.ca_directory), *shown]


def _dumps(value: Any) -> str:
    return json.dumps(value)


class Daemon:
    """A grid and a server on free ports.

    :param directory: an empty one of the test's.
    :param settings: what the configuration says beyond the usual, by section.
    :cvar storage: answers what ``[storage]`` says, unless the settings do.
    """

    storage: ClassVar[Callable[[], dict[str, Any]]] = dict

    def __init__(self, directory: Path, **settings: Mapping[str, Any]) -> None:
        self.directory = directory
        self.grid = Grid(directory)
        self.ca_directory = self.grid.directory.path
        self.https, self.http = free_ports(2)
        self.url = f"https://localhost:{self.https}"
        self.plain = f"http://localhost:{self.http}"
        self.config = directory / "repoman.conf"
        self.log = directory / "twistd.log"
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}
        self.pass_fds: tuple[int, ...] = ()
        self.twistd: list[str | Path] = [Path(sys.executable).with_name("twistd")]
        self._people: list[Person] = []
        self.grid.host()
        self.admin = self.person("Roger Impey", ADMIN)
        self.nobody = self._remember(Person(self))
        (directory / "admins").write_text(f"{ADMIN},{ADMIN}@example.org,{self.admin.dn}\n")
        self.config.write_text(_configuration(self, settings))

    # -- people --

    def person(self, common_name: str, name: str = "", *, limited: bool = False) -> Person:
        """Somebody with a proxy of our CA; whether they are registered is another matter."""
        user = self.grid.user(common_name, key=p256_key(common_name))
        proxy = user.proxy(limited=limited, key=p256_key("proxy"))
        path = proxy.write(self.directory / f"x509up_{next(_numbers)}")
        return self._remember(Person(self, name, f"/C=CA/O=Grid/CN={common_name}", path, user))

    def stranger(self, common_name: str = "Mallory") -> Person:
        """Somebody with a good proxy whom the server does not know."""
        return self.person(common_name)

    def newcomer(self, name: str = "", **fields: Any) -> Person:
        """A new user, registered by the administrator.

        :param fields: what to say of them beyond name and DN.
        """
        name = name or f"user{next(_numbers)}"
        person = self.person(f"Person {name}", name)
        given = {"user_name": name, "cert_dn": person.dn, **fields}
        answer = self.admin.ask("POST", "/api/users", form=given)
        assert answer.status == 200, answer
        return person

    def _remember(self, person: Person) -> Person:
        self._people.append(person)
        return person

    # -- life --

    @contextmanager
    def running(self) -> Iterator[Daemon]:
        """Run until the block ends."""
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def start(self) -> None:
        """Start the server, again after a stop or a kill, and wait until it serves."""
        command = [*self.twistd, "--nodaemon", "--pidfile="]
        command += ["repoman", "--config", self.config]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.directory,
                env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(self.temporary),
                     **self.environment},
                pass_fds=self.pass_fds,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._wait_until_serving()

    def _wait_until_serving(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process and self.process.poll() is None:
            try:
                if self.nobody.ask("GET", "/api/whoami").status == 403:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"The server did not start:\n{self.log.read_text()[-4000:]}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the server with a signal; answer its exit status."""
        for person in self._people:
            person.hang_up()
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    @property
    def dsn(self) -> str:
        """How to look into its database, for a test's own arrangements."""
        socket_directory = self.directory / "state" / "database" / "data"
        return make_dsn(host=str(socket_directory), port=5432, user="repoman", dbname="repoman")


def _configuration(daemon: Daemon, settings: Mapping[str, Mapping[str, Any]]) -> str:
    directory = daemon.directory
    sections: dict[str, dict[str, Any]] = {
        "server": {
            "https": f"tcp:{daemon.https}:interface=127.0.0.1",
            "http": f"tcp:{daemon.http}:interface=127.0.0.1",
            "url": daemon.url,
            "http_url": daemon.plain,
            "state": directory / "state",
        },
        "tls": {
            "certificate": directory / "hostcert.pem",
            "key": directory / "hostkey.pem",
            "ca_directory": daemon.ca_directory,
        },
        "accounts": {"admins": directory / "admins"},
        "storage": type(daemon).storage(),
        "metrics": {"endpoint": ""},
    }
    for section, values in settings.items():
        sections.setdefault(section, {}).update(values)
    return "\n".join(
        f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
        for section, values in sections.items()
    )


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def ask_plain(url: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> Answer:
    """Make one request without TLS."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    try:
        target = parts.path + ("?" + parts.query if "?" in url else "")
        connection.request(method, target, headers=dict(headers or {}))
        response = connection.getresponse()
        answered = {k.title(): v for k, v in response.getheaders()}
        return Answer(response.status, response.reason, answered, response.read())
    finally:
        connection.close()


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A server for all tests that only talk to one."""
    with Daemon(tmp_path_factory.mktemp("daemon")).running() as daemon:
        yield daemon
