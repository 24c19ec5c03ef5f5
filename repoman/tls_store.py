"""OpenSSL's store of the authorities that are trusted, and of their CRLs."""

from __future__ import annotations

from cryptography import x509
from OpenSSL.crypto import X509, X509Store

from repoman.gsi.ca_directory import CADirectory
from repoman.gsi.quietly import quietly
from repoman.gsi.steps import Steps


def fill_store(store: X509Store, directory: CADirectory) -> Steps[list[str]]:
    """Put in what a directory holds.

    A CRL that bears no signature of the authority that it names stays outside: OpenSSL
    could prefer it to the right one.  Where there is no other, :mod:`repoman.gsi` refuses.

    :returns: a line for each thing that OpenSSL does not take; it stays outside.
    """
    faults: list[str] = []
    for authority in directory.authorities:
        faults += _added(store, authority.certificate, authority.names[0])
    for file in directory.crls:
        if file.crl is not None and file.name not in directory.unsigned_crls:
            faults += _added(store, file.crl, file.name)
            yield
    return faults


@quietly()
def _added(
    store: X509Store, entry: x509.Certificate | x509.CertificateRevocationList, name: str
) -> list[str]:
    try:
        if isinstance(entry, x509.Certificate):
            store.add_cert(X509.from_cryptography(entry))
        else:
            store.add_crl(entry)
    except Exception as error:  # of OpenSSL's several trees of errors
        return [f"{name} is not taken by OpenSSL ({type(error).__name__})."]
    return []
