"""TLS towards servers that are no grid's, such as object stores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from OpenSSL import SSL
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from repoman.errors import TrustUnreadable
from repoman.tls import OPTIONS, ClientCreator, ClientTLS, reason_of, verify_server


@implementer(IPolicyForHTTPS)
class PublicTLS:
    """The client's end towards a server that is no grid's: an object store.

    Its certificate and its host name are always verified.  We stay anonymous.

    :param ca_file: the CAs to trust, PEM; ``None``: those of the system.
    :raises TrustUnreadable: there is no CA to trust.
    """

    def __init__(self, ca_file: Path | None) -> None:
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._context.set_min_proto_version(SSL.TLS1_2_VERSION)
        self._context.set_options(OPTIONS)
        self._context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        try:
            if ca_file is None:
                self._context.set_default_verify_paths()
            else:
                self._context.load_verify_locations(str(ca_file))
        except SSL.Error as error:
            raise TrustUnreadable(
                f"{ca_file} holds no CA in PEM form that can be read ({reason_of(error)})."
            ) from None
        self._context.set_verify(SSL.VERIFY_PEER, verify_server)

    def creatorForNetloc(self, hostname: bytes, port: int) -> ClientCreator:
        """Make connections to one server."""
        return ClientCreator(self._context, hostname.decode("ascii"), lambda chain: "")


class WidelyTrustingTLS(ClientTLS):
    """The client's end towards a repository's store, which a grid's CA may vouch for, or another.

    We stay anonymous.  The CAs of the directory are held to all that it says about them.

    :raises TrustUnreadable: there is no CA in the directory.
    """

    def __init__(self, ca_directory: Path) -> None:
        super().__init__(None, ca_directory)
        self._context.set_default_verify_paths()

    def _refusal(self, chain: Sequence[x509.Certificate]) -> str:
        if chain and not self._authorities.trusts(chain[-1]):
            return ""  # the machine trusts it, and the directory has nothing to say
        return super()._refusal(chain)
