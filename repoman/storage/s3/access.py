"""What it takes to reach the object store, and can be judged before anything starts."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from repoman.config import Storage
from repoman.storage.s3.credentials import Credentials, read_credentials
from repoman.tls_public import PublicTLS


@frozen
class Access:
    """The key, and whom to believe.

    :ivar tls: ``None`` for an http endpoint.
    """

    credentials: Credentials
    tls: PublicTLS | None


def read_access(settings: Storage, environment: Mapping[str, str]) -> Access:
    """Read the files that ``[storage]`` names.

    :raises Misconfigured: there are no credentials, or others may read them.
    :raises TrustUnreadable: there is no CA in ``ca_file``.
    """
    credentials = read_credentials(settings.credentials, environment)
    is_https = (settings.endpoint or "").startswith("https:")
    return Access(credentials, PublicTLS(settings.ca_file) if is_https else None)
