"""Signatures of requests (AWS Signature Version 4), which botocore computes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest

from repoman.storage.s3.credentials import Credentials

NOTHING = hashlib.sha256(b"").hexdigest()
"""The digest of no bytes."""


class _Auth(S3SigV4Auth):  # type: ignore[misc]  # botocore has no types
    """Signs the digest that is known, where botocore would read the bytes for it."""

    def __init__(self, credentials: Any, region: str, digest: str) -> None:
        super().__init__(credentials, "s3", region)
        self._digest = digest

    def payload(self, request: Any) -> str:
        return self._digest


class Signer:
    """Signs with one key for one region."""

    def __init__(self, credentials: Credentials, region: str) -> None:
        self._credentials = credentials
        self._region = region

    def headers(
        self, method: str, url: str, headers: Mapping[str, str], digest: str = NOTHING
    ) -> dict[str, str]:
        """All headers of a request, with its signature.

        :param url: escaped, exactly as it is sent.
        :param digest: SHA-256 of the body, in hex: the store refuses other bytes.
        """
        request = AWSRequest(method, url, headers=dict(headers))
        _Auth(self._credentials, self._region, digest).add_auth(request)
        return dict(request.headers.items())

    def link(self, url: str, seconds: int) -> str:
        """A URL by which anybody may get an object for some time."""
        request = AWSRequest("GET", url)
        S3SigV4QueryAuth(self._credentials, "s3", self._region, expires=seconds).add_auth(request)
        return str(request.url)
