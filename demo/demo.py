"""A grid, a server and a user's session, all thrown away at the end.

``python demo/demo.py`` plays the session and exits 0 if all of it went well;
``--keep`` keeps the server in the foreground instead and says how to talk to it.
Run it with the Python of an environment in which Repoman is installed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import ctypes
import hashlib
import http.client
import os
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from attrs import frozen

import grid
from image import write_disk_image

PROGRAMS = Path(sys.executable).parent
"""Where this environment's ``repoman`` and ``twistd`` are."""

USER = "impeyr"
USER_DN = "/C=CA/O=Grid/OU=imsb.nrc.ca/CN=Roger Impey"
IMAGE = "vm019.sao.nrc.ca"

START_TIME = 90
"""Seconds that the server may take until it answers."""

STOP_TIME = 30
"""Seconds that the server may take until it is gone."""

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end the demonstration in good order."""

PR_SET_CHILD_SUBREAPER = 36
"""prctl(2)."""

CONFIGURATION = """\
[server]
https = tcp:{https}:interface=127.0.0.1
http = tcp:{http}:interface=127.0.0.1
url = https://localhost:{https}
http_url = http://localhost:{http}
state = {directory}/state

[tls]
certificate = {directory}/hostcert.pem
key = {directory}/hostkey.pem
ca_directory = {directory}/certificates
crl = require
signing_policy = require

[accounts]
admins = {directory}/admins

[metrics]
endpoint =
"""


class Failed(Exception):
    """The demonstration did not show what it should; the message says what."""


@frozen
class Site:
    """A directory with a grid, a configuration and a home for the user.

    :ivar https: the server's port.
    """

    directory: Path
    https: int

    @property
    def proxy(self) -> Path:
        """The user's proxy, as grid-proxy-init would leave it."""
        return self.directory / "x509up"

    @property
    def ca_directory(self) -> Path:
        """The CAs that both ends believe."""
        return self.directory / "certificates"

    @property
    def log(self) -> Path:
        """What the daemon says."""
        return self.directory / "twistd.log"


def main() -> int:
    """Play the session, or keep the server."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--keep", action="store_true", help="keep the server running")
    keep = arguments.parse_args().keep
    for number in ENDING:
        signal.signal(number, _interrupt)
    adopt_orphans()
    try:
        with _directory() as directory:
            say("Making a CA, a host certificate, a user and a proxy ...")
            site = make_site(directory)
            say("Starting the server, with a PostgreSQL of its own ...")
            with server(site) as daemon:
                if keep:
                    say_how_to_talk_to(site)
                    raise Failed(f"the server ended by itself, with status {daemon.wait()}")
                play(site)
        say("All went well; everything is stopped and removed.")
    except Failed as failure:
        say(f"FAILED: {failure}")
        return 1
    except KeyboardInterrupt:
        say("Stopped and removed.")
        return 0 if keep else 130
    return 0


def say(text: str) -> None:
    """Tell the person in front of the terminal."""
    print(f"\n{text}" if not text.startswith(" ") else text, flush=True)


def make_site(directory: Path) -> Site:
    """Make all that a server and a user of it need."""
    authority = grid.make_authority("/C=CA/O=Grid/CN=Demonstration CA")
    names = dict.fromkeys(["localhost", socket.gethostname(), "127.0.0.1", "::1"])
    host = grid.make_host(authority, "/C=CA/O=Grid/CN=localhost", [*names])
    https, http = free_ports(2)
    site = Site(directory, https)
    grid.write_ca_directory(authority, site.ca_directory)
    host.write(directory / "hostcert.pem", directory / "hostkey.pem")
    grid.make_proxy(grid.make_user(authority, USER_DN)).write_proxy(site.proxy)
    (directory / "admins").write_text(f"{USER},{USER}@localhost,{USER_DN}\n")
    configuration = CONFIGURATION.format(directory=directory, https=https, http=http)
    (directory / "repoman.conf").write_text(configuration)
    client = directory / "home" / ".repoman" / "repoman.conf"
    client.parent.mkdir(parents=True)
    client.write_text(f"[Repository]\nrepository = localhost\nport = {https}\n")
    return site


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def server(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    """Run the daemon until the block ends, and see that it left nothing behind."""
    command = [
        str(PROGRAMS / "twistd"), "--nodaemon", "--pidfile=", f"--logfile={site.log}",
        "repoman", "--config", str(site.directory / "repoman.conf"),
    ]  # fmt: skip
    # A session of its own: Ctrl-C is for us, who then stop it in good order.
    daemon = subprocess.Popen(
        command, cwd=site.directory, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until_it_answers(site, daemon)
        yield daemon
    except Failed:
        show_the_log(site)
        raise
    finally:
        try:
            stop(daemon)
        finally:
            if left := end_orphans():
                raise Failed(f"the server left running: {', '.join(left)}")


def show_the_log(site: Site) -> None:
    """Print the end of what the daemon logged."""
    if site.log.exists():
        say("The end of the server's log:")
        print(*site.log.read_text(errors="replace").splitlines()[-40:], sep="\n", flush=True)


def wait_until_it_answers(site: Site, daemon: subprocess.Popen[bytes]) -> None:
    """Ask until the server knows the user."""
    deadline = time.monotonic() + START_TIME
    reply = "nothing"
    while daemon.poll() is None and time.monotonic() < deadline:
        try:
            reply = ask_who_i_am(site)
            if reply.startswith("200"):
                return
        except OSError as error:
            reply = str(error)
        time.sleep(0.2)
    raise Failed(f"the server does not serve; its last answer: {reply}")


def ask_who_i_am(site: Site) -> str:
    """Ask by the standard library alone, as any program could."""
    context = ssl.create_default_context(capath=str(site.ca_directory))
    context.load_cert_chain(site.proxy)
    connection = http.client.HTTPSConnection("localhost", site.https, context=context, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", "/api/whoami")
        response = connection.getresponse()
        return f"{response.status} {response.read(200)!r}"


def stop(daemon: subprocess.Popen[bytes]) -> None:
    """Let the server finish, and do not wait for ever."""
    daemon.terminate()
    try:
        daemon.wait(STOP_TIME)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
        raise Failed(f"the server did not stop within {STOP_TIME} seconds") from None


def adopt_orphans() -> None:
    """Become the parent of whatever our children leave behind, so that it can be found."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_orphans() -> list[str]:
    """Kill what was left behind; answer the names of the programs."""
    left = []
    while children := list(_children()):
        for process, name, state in children:
            if state != "Z":
                left.append(name)
                os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
    return left


def _children() -> Iterator[tuple[int, str, str]]:
    for status in Path("/proc").glob("[0-9]*/stat"):
        # A process may be gone meanwhile.
        with contextlib.suppress(OSError):
            start, _, rest = status.read_text(errors="replace").rpartition(")")
            process, _, name = start.partition(" (")
            state, parent = rest.split()[:2]
            if int(parent) == os.getpid():
                yield int(process), name, state


def environment(site: Site) -> dict[str, str]:
    """What a grid user's shell knows, and nothing of who runs the demonstration."""
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TERM") if name in os.environ}
    return {
        **kept,
        "PATH": f"{PROGRAMS}{os.pathsep}{os.defpath}",
        "HOME": str(site.directory / "home"),
        "X509_USER_PROXY": str(site.proxy),
        "X509_CERT_DIR": str(site.ca_directory),
    }


def play(site: Site) -> None:
    """The session of the slides: look around, store an image, fetch it again."""
    home = site.directory / "home"
    repoman = Session(site)
    expect(repoman("whoami").split() == [USER], "whoami did not name the user")
    expect(repoman("list") == "", "a new repository lists images")

    say("Writing a bootable disk image of 64 MiB ...")
    write_disk_image(home / "disk.img")
    repoman("create-image", "--name", IMAGE, "--description", "A bootable demonstration image")
    repoman("upload-image", IMAGE, "--file", "disk.img")
    expect(repoman("list").split() == [f"{USER}/{IMAGE}"], "list did not show the image")
    described = ast.literal_eval(repoman("describe-image", IMAGE))
    repoman("get", IMAGE, "--dest", "copy.img")

    digests = [sha256(home / name) for name in ("disk.img", "copy.img")]
    say("sha256 of what was sent, what came back, and what the server says:")
    said = [*digests, described["checksum"]["value"]]
    for digest, name in zip(said, ("disk.img", "copy.img", "describe-image"), strict=True):
        say(f"  {digest}  {name}")
    expect(len(set(said)) == 1, "the digests differ")
    repoman("delete", IMAGE, "--force")
    expect(repoman("list") == "", "the deleted image is still listed")


class Session:
    """Runs ``repoman`` as the user would, and shows it."""

    def __init__(self, site: Site) -> None:
        self._environment = environment(site)

    def __call__(self, *words: str) -> str:
        """Run one command and answer its standard output.

        :raises Failed: it did not exit with 0.
        """
        say(f"$ {shlex.join(['repoman', *words])}")
        done = subprocess.run(
            [PROGRAMS / "repoman", *words],
            cwd=self._environment["HOME"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        print(done.stdout, end="", flush=True)
        expect(done.returncode == 0, f"repoman {words[0]} exited with {done.returncode}")
        return done.stdout


def expect(condition: bool, otherwise: str) -> None:
    """Go on only if it is so.

    :raises Failed: with ``otherwise``.
    """
    if not condition:
        raise Failed(otherwise)


def sha256(path: Path) -> str:
    """Hash a file, a bit at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1024 * 1024):
            digest.update(chunk)
    return digest.hexdigest()


def say_how_to_talk_to(site: Site) -> None:
    """Print lines to paste into another terminal."""
    url = f"https://localhost:{site.https}"
    say(
        f"Serving at {url} until Ctrl-C; the log is {site.log}\n\n"
        "Paste this into another terminal:\n\n"
        f"  export X509_USER_PROXY={shlex.quote(str(site.proxy))}\n"
        f"  export X509_CERT_DIR={shlex.quote(str(site.ca_directory))}\n"
        f"  export PATH={shlex.quote(str(PROGRAMS))}:$PATH\n\n"
        f"  alias repoman='repoman -H localhost -P {site.https}'\n"
        f"  repoman whoami\n"
        f"  repoman create-image --name mine\n"
        f"  repoman upload-image mine --file DISK\n"
        f"  repoman get mine --dest copy.img\n"
        f"  curl --cert $X509_USER_PROXY --key $X509_USER_PROXY --capath $X509_CERT_DIR"
        f" {url}/api/whoami"
    )


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    """A directory for all of it, removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="repoman-demo-")).resolve()
    if os.getuid() == 0:
        # PostgreSQL refuses to be root; the account that it is run as must get at its data.
        directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """End in good order, undisturbed by more of the same."""
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
