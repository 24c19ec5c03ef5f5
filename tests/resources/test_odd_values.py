"""Whatever comes in a form, a query or a header: a refusal that names the fault, never a 500."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.server import Daemon, Person

VALUES: dict[str, str] = {
    "null": "null",
    "true": "true",
    "a number": "1",
    "a negative number": "-1",
    "a fraction": "1.5",
    "a large fraction": "1e999",
    "NaN": "NaN",
    "Infinity": "Infinity",
    "a huge number": "9" * 30,
    "more digits than Python reads": "9" * 5000,
    "a list": "[]",
    "a list of numbers": "[1, null, [2], {}]",
    "a list of lists": '[["a"]]',
    "an object": '{"a": 1}',
    "a deep list": "[" * 100_000 + "]" * 100_000,
    "a lone surrogate": r'"\ud800"',
    "a list with a lone surrogate": r'["\ud800"]',
    "a NUL": r'"\u0000"',
    "a list with a NUL": r'["a", "\u0000"]',
    "nothing": '""',
    "blanks": '"  "',
    "braces": '"{} {0} %s %(a)s"',
    "a slash": '"a/b"',
    "digits of elsewhere": '"\u0663"',
    "a superscript": '"\u00b2"',
    "a far year": '"99999-01-01"',
    "the last year with a zone": '"9999-12-31T23:59:59-23:59"',
    "the first year with a zone": '"0001-01-01T00:00:00+23:59"',
    "an odd zone": '"2026-01-01T00:00:00+99:99"',
    "a week": '"2026-W01-1"',
    "a long text": '"' + "x" * 100_000 + '"',
}
"""Values in JSON's own words."""

FORMS = {
    "/api/users": ("user_name", "cert_dn", "issuer_dn", "client_dns", "full_name", "email",
                   "groups", "suspended", "quota"),
    "/api/users/{user}": ("user_name", "cert_dn", "issuer_dn", "client_dns", "full_name",
                          "email", "suspended", "quota"),
    "/api/groups": ("name", "users", "permissions"),
    "/api/groups/odd": ("name",),
    "/api/images": ("name", "description", "os_variant", "os_type", "os_arch", "hypervisor",
                    "expires", "read_only", "unauthenticated_access", "user_name"),
    "/api/images/odd": ("name", "description", "os_variant", "os_type", "os_arch", "hypervisor",
                        "owner", "expires", "read_only", "unauthenticated_access"),
}  # fmt: skip
"""The fields of each form."""

BASE = {
    "/api/users": {"user_name": "odd1", "cert_dn": "/C=CA/O=Grid/CN=Odd One"},
    "/api/groups": {"name": "odd1"},
    "/api/images": {"name": "odd1"},
}
"""What each form needs besides."""

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def user(daemon: Daemon) -> Person:
    user = daemon.newcomer("odduser")
    daemon.admin.ask("POST", "/api/groups", form={"name": "odd"})
    daemon.admin.ask("POST", "/api/images", form={"name": "odd"})
    daemon.admin.ask("PUT", "/api/images/raw/odd", body=b"content")
    return user


def wrong(person: Person, method: str, path: str, **how: Any) -> list[str]:
    """What is wrong with an answer: a fault of ours, nothing said, or more than a few lines."""
    answer = person.ask(method, path, **how)
    said = answer.status < 400 or method == "HEAD" or 0 < len(answer.body.strip()) < 2000
    if answer.status < 500 and said:
        return []
    shown = {name: str(value)[:150] for name, value in how.items()}
    return [f"{method} {path[:150]} {shown}: {answer.status} {answer.body[:150]!r}"]


@pytest.mark.parametrize("path", FORMS)
def test_no_value_of_a_field_is_a_fault_of_ours(daemon: Daemon, user: Person, path: str) -> None:
    base, fields, found = BASE.get(path, {}), FORMS[path], []
    path = path.format(user=user.name)
    for field in fields:
        for value in VALUES.values():
            others = {name: one for name, one in base.items() if name != field}
            body = json.dumps({**others, "FIELD": 0}).replace('"FIELD": 0', f'"{field}": {value}')
            found += wrong(daemon.admin, "POST", path, body=body.encode(), headers=JSON)
        for made in ("/api/users/odd1", "/api/groups/odd1", "/api/images/odd1"):
            if base and made.startswith(path):
                daemon.admin.ask("DELETE", made)
        # A date is a name, too.
        daemon.admin.ask("POST", "/api/users/99999-01-01", form={"user_name": user.name})
    assert found == []
    assert "Traceback" not in daemon.log.read_text()


BODIES = [
    b"[]", b"1", b"null", b'"x"', b"{", b'{"name": "a", "name": "b"}', b"{}" * 2, b"\xff",
    b"\xef\xbb\xbf{}",
    b'{"%s": 1}' % (b"x" * 100_000), b'{"\\ud800": 1}', b'{"\\u0000": 1}', b'{"": 1}',
    b"[" * 100_000, b'{"a":' * 100_000, b"{\"name\": " + b"9" * 5000 + b"}",
]  # fmt: skip
"""JSON that is none of ours."""

TEXTS = [
    b"name=%ff", b"name=%ud800", b"=&=&", b"&" * 5000, b"a=1&" * 5000, b"name=a&name=b",
    b"%s=1" % (b"x" * 100_000), b"name=%00", b"name=%", b";;;", b"name=" + b"%41" * 50_000,
]  # fmt: skip
"""Forms that are none of ours."""


def test_no_body_is_a_fault_of_ours(daemon: Daemon, user: Person) -> None:
    found = []
    for path in ("/api/users", "/api/groups", "/api/images", f"/api/users/{user.name}"):
        for body in BODIES:
            found += wrong(daemon.admin, "POST", path, body=body, headers=JSON)
        for kind in ("application/x-www-form-urlencoded", "text/plain", "a/b;c", ";", "json"):
            for body in TEXTS:
                how = {"body": body, "headers": {"Content-Type": kind}}
                found += wrong(daemon.admin, "POST", path, **how)
    assert found == []


ODD = (
    "", "-1", "1.5", "9" * 30, "9" * 5000, "%00", "%ff", "%ed%a0%80", "%d9%a3", "%c2%b2", "--",
    "%25", "'", "x" * 8000, ",",
)  # fmt: skip
"""Values of a query."""

QUERIES = (
    "view", "owner", "q", "os_type", "os_arch", "os_variant", "hypervisor", "shared_with", "sort",
    "limit", "after", "before", "since", "until", "user", "action", "subject", "unknown",
)  # fmt: skip


def test_no_query_is_a_fault_of_ours(daemon: Daemon, user: Person) -> None:
    found = []
    for path in ("/api/images", "/api/audit", "/"):
        for name in QUERIES:
            for value in ODD:
                answer = daemon.admin.ask("GET", f"{path}?{name}={value}")
                if answer.status >= 500:
                    found.append(f"{path}?{name}={value[:100]}: {answer.status}")
    assert found == []


HEADERS = (
    "Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since",
    "Want-Digest", "Want-Repr-Digest", "Prefer", "Accept", "Accept-Encoding", "Accept-Language",
    "Cookie", "Expect", "Upload-Offset", "Upload-Length", "Upload-Complete", "Content-Range",
    "Content-Type", "Repr-Digest", "Content-Digest", "Digest", "Content-MD5", "Content-Encoding",
    "Origin", "Referer", "Sec-Fetch-Site", "Connection", "Upgrade", "User-Agent", "X-Request-Id",
)  # fmt: skip

ODD_HEADERS = (
    b"", b"-1", b"1.5", b"9" * 30, b"9" * 5000, b"\xd9\xa3", b"\xc2\xb2", b"x" * 8000, b"?1", b"?0",
    b"bytes=-0", b"bytes=9-1", b"bytes=" + b"9" * 900 + b"-", b"bytes=\xd9\xa3-", b'"',
    b"sha-256=:x:", b"md5", b"=", b",,,", b"a;q=1e999", b"md5;q=9.9.9", b"md5;q=" + b"9" * 5000,
    b"Mon, 31 Feb 2026 00:00:00 GMT", b"Thu, 01 Jan 0000 00:00:00 GMT",
    b"Fri, 31 Dec 9999 23:59:59 -2400", b"Fri, 31 Dec 99999 23:59:59 GMT", b"\x01\x7f",
    b"application/json;charset=none", b"http://[", b"%00",
)  # fmt: skip
"""Values of a header."""

REQUESTS = (
    ("GET", "/api/images/raw/odd"), ("POST", "/api/images/raw/odd"), ("POST", "/api/images"),
    ("PATCH", "/api/uploads/odd"),
)  # fmt: skip


def test_no_header_is_a_fault_of_ours(daemon: Daemon, user: Person) -> None:
    found = []
    for name in HEADERS:
        for method, path in REQUESTS:
            length = {} if method == "GET" else {"Content-Length": b"0"}
            for value in ODD_HEADERS:
                found += wrong(daemon.admin, method, path, headers={name: value, **length})
    assert found == []


@pytest.mark.parametrize(
    ("page", "action"),
    [
        ("/new", "/new"),
        ("/users/new", "/users/new"),
        ("/user/odduser", "/user/odduser/change"),
        ("/groups", "/groups"),
    ],
)
def test_a_form_of_a_page_in_json_is_no_fault_of_ours(
    daemon: Daemon, user: Person, page: str, action: str
) -> None:
    shown = daemon.admin.ask("GET", page).text
    form = re.search(rf'action="{action}".*?name="token" value="([^"]+)"', shown, re.DOTALL)
    assert form, shown
    same = {"Origin": daemon.url, "Sec-Fetch-Site": "same-origin", **JSON}
    found = []
    for field in ("quota", "name", "user_name", "full_name", "email", "expires", "token"):
        for value in VALUES.values():
            token = {} if field == "token" else {"token": form[1]}
            sent = json.dumps({**token, "FIELD": 0})
            body = sent.replace('"FIELD": 0', f'"{field}": {value}').encode()
            answer = daemon.admin.ask("POST", action, body=body, headers=same)
            if answer.status >= 500:
                found.append(f"{field} = {value[:50]}: {answer.text[:200]}")
    assert found == []
    assert "Traceback" not in daemon.log.read_text()
