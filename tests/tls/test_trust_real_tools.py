"""Cases 2, 5, 6, 12 and 36, with what the programs on users' machines make."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import pytest_twisted
from attrs import evolve
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from repoman.gsi.credential import ClientCredential
from tests.credentials import Credential, Grid
from tests.tls.door import Door

ROGER = "/C=CA/O=Grid/CN=Roger Impey"


@pytest.fixture
def version() -> int:
    """One is enough here: what the tools make does not depend on TLS."""
    return SSL.TLS1_3_VERSION


GRID_PROXY_INIT = ["grid-proxy-init", "-q", "-cert", "CERT", "-key", "KEY", "-out", "OUT"]
VOMS_PROXY_INIT = ["voms-proxy-init", "-cert", "CERT", "-key", "KEY", "-out", "OUT"]
VOMS_PROXY_FAKE = [
    *["voms-proxy-fake", "-cert", "CERT", "-key", "KEY", "-out", "OUT", "-hostcert", "HOSTCERT"],
    *["-hostkey", "HOSTKEY", "-voms", "testvo", "-fqan", "/testvo", "-uri", "localhost:15000"],
]
ARCPROXY = ["arcproxy", "-C", "CERT", "-K", "KEY", "-P", "OUT", "-T", "CADIR"]

TOOLS = {
    "grid-proxy-init": [*GRID_PROXY_INIT, "-rfc"],
    "grid-proxy-init limited": [*GRID_PROXY_INIT, "-rfc", "-limited"],
    "grid-proxy-init path length": [*GRID_PROXY_INIT, "-rfc", "-path-length", "2"],
    "grid-proxy-init old": [*GRID_PROXY_INIT, "-old"],
    "grid-proxy-init old limited": [*GRID_PROXY_INIT, "-old", "-limited"],
    "grid-proxy-init draft": [*GRID_PROXY_INIT, "-draft"],
    "grid-proxy-init draft limited": [*GRID_PROXY_INIT, "-draft", "-limited"],
    "grid-proxy-init independent": [*GRID_PROXY_INIT, "-rfc", "-independent"],
    "voms-proxy-init": [*VOMS_PROXY_INIT, "-rfc"],
    "voms-proxy-fake": [*VOMS_PROXY_FAKE, "-rfc"],
    "voms-proxy-fake limited": [*VOMS_PROXY_FAKE, "-rfc", "-limited"],
    "arcproxy": ARCPROXY,
}


def run_tool(tool: Sequence[str], grid: Grid, certificate: Path, key: Path) -> Path:
    """Let a real program make a proxy."""
    if shutil.which(tool[0]) is None:
        pytest.skip(f"{tool[0]} is not installed")
    out = grid.place / f"{certificate.stem}-proxy"
    hostcert, hostkey = grid.host("localhost")
    words = {
        "CERT": certificate, "KEY": key, "OUT": out, "CADIR": grid.directory.path,
        "HOSTCERT": hostcert, "HOSTKEY": hostkey,
    }  # fmt: skip
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(grid.place),
        "X509_CERT_DIR": str(grid.directory.path), "RANDFILE": str(grid.place / ".rnd"),
    }  # fmt: skip
    (grid.place / ".rnd").touch()
    done = subprocess.run(
        [str(words.get(word, word)) for word in tool],
        env=environment, cwd=grid.place, capture_output=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr).replace(b".", b"")
    return out


def from_file(path: Path) -> Credential:
    """What a proxy file holds, as our client reads it."""
    read = ClientCredential.read(path).credential
    ders = [c.public_bytes(Encoding.DER) for c in (read.certificate, *read.chain)]
    chain = [Credential(der, read.key, b"", 0) for der in ders]
    # The root, which is not sent.
    return evolve(chain[0], issuers=(*chain[1:], chain[0]))


@pytest.fixture
def user_files(grid: Grid) -> tuple[Path, Path]:
    paths = grid.place / "usercert.pem", grid.place / "userkey.pem"
    grid.user().write_pair(*paths)
    return paths


@pytest.mark.parametrize("tool", TOOLS)
@pytest_twisted.ensureDeferred
async def test_case_2_proxies_of_real_tools(
    door: Door, grid: Grid, user_files: tuple[Path, Path], tool: str
) -> None:
    proxy = from_file(run_tool(TOOLS[tool], grid, *user_files))
    if "independent" in tool:
        assert "independent" in await door.refuses(proxy)
    elif "old" in tool or "draft" in tool:
        assert "grid-proxy-init -rfc" in await door.refuses(proxy)
    else:
        identity = await door.welcomes(proxy)
        assert (identity.subject, identity.proxies) == (ROGER, 1)
        assert identity.limited == ("limited" in tool)


@pytest.mark.parametrize("second", ["grid-proxy-init", "arcproxy"])
@pytest.mark.parametrize(
    "first", ["grid-proxy-init", "voms-proxy-init", "voms-proxy-fake", "arcproxy"]
)
@pytest_twisted.ensureDeferred
async def test_case_2_a_proxy_of_a_proxy_of_real_tools(
    door: Door, grid: Grid, user_files: tuple[Path, Path], first: str, second: str
) -> None:
    one = run_tool(TOOLS[first], grid, *user_files)
    two = run_tool(TOOLS[second], grid, one, one)
    identity = await door.welcomes(from_file(two))
    assert (identity.subject, identity.proxies) == (ROGER, 2)


class TestRealOldProxiesWithTheOption:
    """The operator lets old proxies in, and the real tools make them."""

    @pytest.fixture
    def legacy(self) -> bool:
        return True

    @pytest.mark.parametrize("tool", [tool for tool in TOOLS if "old" in tool or "draft" in tool])
    @pytest_twisted.ensureDeferred
    async def test_case_12_old_proxies_of_real_tools(
        self, door: Door, grid: Grid, user_files: tuple[Path, Path], tool: str
    ) -> None:
        identity = await door.welcomes(from_file(run_tool(TOOLS[tool], grid, *user_files)))
        assert (identity.subject, identity.limited) == (ROGER, "limited" in tool)
