"""Which names a certificate authority may issue.

Two formats lie in a CA directory: Globus's ``HASH.signing_policy`` and
``HASH.namespaces`` of the IGTF.  Both become one :class:`NamePolicy`.  A CA
with both must satisfy both.

What is not understood is never skipped: it could be what takes a right away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import translate
from itertools import zip_longest

from attrs import frozen
from cryptography import x509

from repoman.gsi.attributes import NAMES, OIDS
from repoman.gsi.dn import dn_text, from_bytes, unescaped
from repoman.gsi.words import Statement, Word, statements, words


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
    :ivar remarks: what in it is of no effect, a clause each.
    """

    file: str
    rules: tuple[NameRule, ...]
    remarks: tuple[str, ...] = ()

    def allows(self, issuer: str, subject: str) -> bool:
        """The CA of this DN may issue that DN: permitted, and nowhere denied."""
        ca, name = comparable(unescaped(issuer)), comparable(unescaped(subject))
        verdicts = [r.permits for r in self.rules if r.issuer == ca and r.subjects.fullmatch(name)]
        return bool(verdicts) and all(verdicts)

    def remarks_on(self, issuer: str) -> Iterator[str]:
        """What in it is of no effect, for the CA of this DN: a clause each."""
        yield from self.remarks
        ca = comparable(unescaped(issuer))
        if not any(rule.permits and rule.issuer == ca for rule in self.rules):
            yield f"permits {issuer} nothing: all of its users are refused"


_KIND = re.compile(r"(?<=[/+])(?:OID\.)?([A-Z0-9.-]+)(?==)", re.IGNORECASE | re.ASCII)


def comparable(dn: str) -> str:
    """Fold what a policy does not tell apart: case, and the names of one attribute type."""
    return _with_one_name(dn).lower()


def _with_one_name(text: str) -> str:
    return _KIND.sub(lambda kind: _one_name(kind[1].lower()), text)


def _one_name(kind: str) -> str:
    # Not the OID: a dot is a sign of its own in a regular expression.
    return NAMES.get(OIDS.get(kind, kind), kind)


def parse_signing_policy(text: str, file: str) -> NamePolicy:
    """Read Globus's format: entries of ``access_id_CA``, ``pos_rights``, ``cond_subjects``.

    Rights of what is no CA, as ``access_id_ANYBODY``, give a CA nothing.
    ``neg_rights`` deny all that the CAs of their entry might issue.

    :raises ValueError: with the line at fault.
    """
    found = list(_signing_rules(list(statements(text, _KEYWORD, "line"))))
    remarks = tuple(each for each in found if isinstance(each, str))
    return NamePolicy(file, tuple(each for each in found if not isinstance(each, str)), remarks)


_KEYWORD = re.compile(r"access_id_.*|(?:pos|neg)_rights|cond_.*")
_RIGHTS = ("pos_rights", "neg_rights")
_NO_CAS = tuple(f"access_id_{kind}" for kind in ("anybody", "user", "group", "host", "application"))


def _signing_rules(found: list[Statement]) -> Iterator[NameRule | str]:
    issuers: list[str] = []
    last = ""
    for statement, following in zip_longest(found, found[1:]):
        keyword, then = statement.keyword, _keyword(following)
        values = [value.lower() for value in statement.values]
        if keyword.startswith("access_id_") and then.startswith(("access_id_", *_RIGHTS)):
            issuers = [] if not last.startswith("access_id_") else issuers
            issuers += _issuers(statement)
        elif keyword in _RIGHTS and last and values == ["globus", "ca:sign"]:
            if keyword == "neg_rights":
                yield from (NameRule(issuer, _glob("*"), permits=False) for issuer in issuers)
            elif then != "cond_subjects":
                yield f"has in {statement.place} a right without cond_subjects, which is none"
        elif (
            keyword == "cond_subjects"
            and last in ("pos_rights", "cond_subjects")
            and values[:1] == ["globus"]
        ):
            for glob in _values(statement):
                yield from (NameRule(issuer, _glob(glob)) for issuer in issuers)
                yield from _doubts(statement, glob)
        else:
            raise statement.not_understood()
        last = keyword


def _matches_nothing(statement: Statement, subject: str) -> str:
    return f"has in {statement.place} what no DN can match: {subject}"


def _keyword(statement: Statement | None) -> str:
    return statement.keyword if statement else ""


def _issuers(statement: Statement) -> list[str]:
    if statement.keyword in _NO_CAS:
        return []
    if statement.keyword != "access_id_ca" or [v.lower() for v in statement.values[:1]] != ["x509"]:
        raise statement.not_understood()
    (issuer, *more) = _values(statement)
    if more:
        raise statement.not_understood()
    return [comparable(issuer)]


def _values(statement: Statement) -> list[str]:
    """The values behind the authority, each quoted, or all of them once more: ``'"a" "b"'``."""
    found = [value for word in statement.words[1:] for value in _quoted_twice(word)]
    if not all(found) or not found:
        raise statement.not_understood()
    try:
        return [_plain(value) for value in found]
    except ValueError:
        raise statement.not_understood() from None


def _quoted_twice(word: Word) -> list[str]:
    if not word.quoted:
        # Anything else is a keyword that we do not know, perhaps one that denies.
        return [word.text if word.text.startswith(("/", "*", "?")) else ""]
    if not word.text.strip().startswith(("'", '"')):
        return [word.text]
    return [inner.text if inner.quoted else "" for inner in words(word.text, word.line)]


def _plain(text: str) -> str:
    return re.sub(r"\\(['\"\\/+])", r"\1", from_bytes(text))


def _glob(glob: str) -> re.Pattern[str]:
    # Its patterns never go back over a star, so that many stars take no more time than one; a
    # bracket is no wildcard to Globus.
    return re.compile(translate(comparable(glob).replace("[", "[[]")))


def _doubts(statement: Statement, glob: str) -> Iterator[str]:
    """Why nobody's DN is like this."""
    if not _can_match(glob):
        yield _matches_nothing(statement, glob)
    elif not re.search(r"[*?]|/(?:CN|commonName)=", glob, re.IGNORECASE):
        yield f"has in {statement.place} one name without a CN, which is nobody's: {glob}"


def _can_match(glob: str) -> bool:
    """Some DN is like this: it begins with a slash and an attribute, and ends with no slash."""
    kind = re.match(r"/(?:OID\.)?([^/=*?]+)=", glob, re.IGNORECASE)
    if kind is None:
        return re.match(r"[*?]|/[^/=*?]*[*?]", glob) is not None
    known = kind[1].lower() in OIDS or re.fullmatch(r"[0-9]+(\.[0-9]+)+", kind[1]) is not None
    return known and not glob.endswith("/")


def parse_namespaces(text: str, file: str, own: x509.Name) -> NamePolicy:
    """Read the IGTF's format: ``TO Issuer "DN"|SELF PERMIT|DENY Subject "regex"``.

    :param own: what ``SELF`` means: the name of the CA that the file belongs to.
    :raises ValueError: with the statement at fault.
    """
    rules, remarks = [], []
    for statement in statements(text, _TO, "statement in line"):
        rules.append(_namespace_rule(statement, own))
        if re.match(r"\^?[^/.\\(\[^]", statement.values[-1]):
            remarks.append(_matches_nothing(statement, statement.values[-1]))
    return NamePolicy(file, tuple(rules), tuple(remarks))


_TO = re.compile("to")
_VERBS = ("permit", "deny")


def _namespace_rule(statement: Statement, own: x509.Name) -> NameRule:
    shape = [word.text.lower() if not word.quoted else '"' for word in statement.words]
    if shape not in [
        ["issuer", who, verb, "subject", '"'] for who in ('"', "self") for verb in _VERBS
    ]:
        raise statement.not_understood()
    _, who, verb, _, pattern = statement.words
    issuer = _plain(who.text) if who.quoted else unescaped(dn_text(own))
    try:
        subjects = re.compile(_with_one_name(pattern.text), re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"has a bad regular expression: {pattern.text} ({error})") from None
    return NameRule(comparable(issuer), subjects, verb.text.lower() == "permit")
