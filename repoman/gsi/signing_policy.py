"""Which names a certificate authority may issue.

Two formats lie in a CA directory: Globus's ``HASH.signing_policy`` and
``HASH.namespaces`` of the IGTF.  Both become one :class:`NamePolicy`.  A CA
with both must satisfy both.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator

from attrs import frozen
from cryptography import x509

from repoman.gsi.dn import dn_text, unescaped


@frozen
class NameRule:
    """One line of a policy.

    :ivar issuer: the CA that it is about, as :func:`comparable` text.
    :ivar subjects: what the whole :func:`comparable` subject must match.
    :ivar permits: or else denies.
    """

    issuer: str
    subjects: re.Pattern[str]
    permits: bool = True


@frozen
class NamePolicy:
    """The rules of one file.

    :ivar file: its name, for messages.
    """

    file: str
    rules: tuple[NameRule, ...]

    def allows(self, issuer: str, subject: str) -> bool:
        """The CA of this DN may issue that DN: permitted, and nowhere denied."""
        ca, name = comparable(unescaped(issuer)), comparable(unescaped(subject))
        verdicts = [r.permits for r in self.rules if r.issuer == ca and r.subjects.fullmatch(name)]
        return bool(verdicts) and all(verdicts)


def comparable(dn: str) -> str:
    """Fold what a policy does not tell apart: case, and the names of e-mail and user id."""
    folded = re.sub(r"/(?:e|email)=", "/emailaddress=", dn.lower())
    return folded.replace("/userid=", "/uid=")


def parse_signing_policy(text: str, file: str) -> NamePolicy:
    """Read Globus's format: blocks of ``access_id_CA``, ``pos_rights``, ``cond_subjects``.

    :raises ValueError: with the line at fault.
    """
    return NamePolicy(file, tuple(_signing_rules(_lines(text))))


def _lines(text: str) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            keyword, _, rest = line.replace("\t", " ").partition(" ")
            yield number, keyword, rest.strip()


def _signing_rules(lines: Iterable[tuple[int, str, str]]) -> Iterator[NameRule]:
    issuer, may_sign = "", False
    for number, keyword, rest in lines:
        authority, _, value = rest.partition(" ")
        values = _quoted(value, number)
        if keyword == "access_id_CA" and authority.lower() == "x509" and len(values) == 1:
            issuer, may_sign = comparable(values[0]), False
        elif keyword == "pos_rights" and issuer and authority == "globus":
            may_sign = values == ["CA:sign"]
        elif keyword == "cond_subjects" and may_sign and authority == "globus" and values:
            for glob in values:
                yield NameRule(issuer, _glob(glob))
        else:
            # Globus knows no other keyword either; a policy half understood is none.
            raise ValueError(f"has a line {number} that is not understood: {keyword} {rest}")


def _quoted(value: str, number: int) -> list[str]:
    """The words of ``'"a b" "c"'``, ``'a b'``, ``"a b"`` or ``a``."""
    value = value.strip()
    try:
        if value.startswith("'") and value.endswith("'") and '"' in value:
            value = value[1:-1]
        return shlex.split(value, comments=True)
    except ValueError:
        raise ValueError(f"has unbalanced quotes in line {number}") from None


def _glob(glob: str) -> re.Pattern[str]:
    parts = comparable(glob).split("*")
    return re.compile(".*".join(map(re.escape, parts)), re.DOTALL)


def parse_namespaces(text: str, file: str, own: x509.Name) -> NamePolicy:
    """Read the IGTF's format: ``TO Issuer "DN"|SELF PERMIT|DENY Subject "regex"``.

    :param own: what ``SELF`` means: the name of the CA that the file belongs to.
    :raises ValueError: with the statement at fault.
    """
    joined = re.sub(r"\\\s*\n", " ", re.sub(r"(?m)^\s*#.*$", "", text))
    statements = [line.strip() for line in joined.splitlines() if line.strip()]
    return NamePolicy(file, tuple(_namespace_rule(s, own) for s in statements))


_NAMESPACE = re.compile(
    r'TO\s+ISSUER\s+(?:"(?P<issuer>[^"]*)"|(?P<self>SELF))\s+'
    r'(?P<verb>PERMIT|DENY)\s+SUBJECT\s+"(?P<subject>[^"]*)"',
    re.IGNORECASE,
)


def _namespace_rule(statement: str, own: x509.Name) -> NameRule:
    match = _NAMESPACE.fullmatch(statement)
    if match is None:
        raise ValueError(f"has a statement that is not understood: {statement}")
    issuer = unescaped(dn_text(own)) if match["self"] else match["issuer"]
    try:
        subjects = re.compile(match["subject"], re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"has a bad regular expression: {match['subject']} ({error})") from None
    return NameRule(comparable(issuer), subjects, match["verb"].upper() == "PERMIT")
