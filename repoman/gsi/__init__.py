"""Grid security without I/O: certificate chains, names, CA directories, CRLs, policies.

Everything in here is fed with values and answers with values; only
:mod:`repoman.tls` touches OpenSSL.
"""
