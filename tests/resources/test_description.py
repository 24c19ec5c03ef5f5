"""The OpenAPI description is what the server does."""

from __future__ import annotations

import json
import re
import ssl
from importlib.resources import files
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from requests.adapters import HTTPAdapter
from schemathesis.checks import load_all_checks

from repoman.model import PERMISSIONS
from repoman.resources import Root
from repoman.wire import STATUSES, UPLOAD_MEDIA
from tests.server import Daemon

DESCRIPTION = json.loads(files("repoman").joinpath("openapi.json").read_text())
OPERATIONS = {
    f"{method.upper()} {path}"
    for path, methods in DESCRIPTION["paths"].items()
    for method in methods
}


def test_every_route_is_described_and_every_described_one_exists() -> None:
    root = Root(AnyRepository(), None, None)  # type: ignore[arg-type]  # no request is made
    routes = {
        f"{method} " + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule.replace("<end:end>", ""))
        for rule in root.app.url_map.iter_rules()
        for method in rule.methods or ()
        if method != "HEAD"
    }
    assert routes == OPERATIONS


class AnyRepository:
    """Has whatever one asks it for."""

    def __getattr__(self, name: str) -> None:
        return None


def test_its_lists_are_those_of_the_code() -> None:
    assert DESCRIPTION["components"]["schemas"]["Permission"]["enum"] == list(PERMISSIONS)
    described = {int(r.removeprefix("Refused")) for r in DESCRIPTION["components"]["responses"]}
    assert described == set(STATUSES.values()) - {405, 500, 503}


def test_everybody_gets_it(daemon: Daemon) -> None:
    served = daemon.nobody.ask("GET", "/api/openapi.json").json
    assert served.pop("servers") == [{"url": daemon.url}]
    assert served == DESCRIPTION


class WithCertificate(HTTPAdapter):
    """A transport that shows somebody's proxy."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, ssl_context=self._tls, **options)


@pytest.fixture(scope="module")
def session(daemon: Daemon) -> requests.Session:
    """The HTTP of somebody who may do a lot, but does not harm the other tests' things."""
    session = requests.Session()
    me = daemon.newcomer("fuzzed")
    for permission in set(PERMISSIONS) - {"image_modify", "image_delete", "user_modify"}:
        name = f"fuzzers-{permission}"
        daemon.admin.ask(
            "POST", "/api/groups", form={"name": name, "users": "fuzzed", "permissions": permission}
        )
    for name in ("one", "two"):
        me.ask("POST", "/api/images", form={"name": name, "hypervisor": "xen,kvm"})
        me.ask("PUT", f"/api/images/raw/fuzzed/kvm/{name}", body=b"bytes")
    session.mount(daemon.url, WithCertificate(me.tls))
    session.trust_env = False
    session.verify = True
    return session


load_all_checks()
CHECKS = [
    schemathesis.checks.CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "response_headers_conformance",
    )
]


@schemathesis.serializer(UPLOAD_MEDIA)
def part_of_an_upload(context: Any, value: Any) -> bytes:
    """What a body of this type is made of."""
    return value if isinstance(value, bytes) else str(value).encode()


schema = schemathesis.openapi.from_dict(DESCRIPTION)


@schema.parametrize()
@settings(
    max_examples=8,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
def test_the_server_does_as_described(
    case: schemathesis.Case, daemon: Daemon, session: requests.Session
) -> None:
    case.call_and_validate(base_url=daemon.url, session=session, checks=CHECKS, timeout=30)
