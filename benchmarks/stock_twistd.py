"""twistd, with Twisted's and pyOpenSSL's own ways to move bytes: what ours are compared with."""

from __future__ import annotations

from twisted.scripts.twistd import run

from repoman import tap, tls_flow

if __name__ == "__main__":
    tls_flow.PRIVATE = (*tls_flow.PRIVATE, "none such")  # so that it finds a Twisted it knows not
    tap.keep_freed_memory = lambda: None  # type: ignore[assignment]
    run()
