"""How a certificate gets into a browser, for people to follow."""

from __future__ import annotations

MAKE_FILE = """\
openssl pkcs12 -export -out me.p12 \\
    -in ~/.globus/usercert.pem -inkey ~/.globus/userkey.pem"""
"""What makes a PKCS#12 file."""

IN_BROWSERS = (
    ("Firefox", "Settings, Privacy & Security, View Certificates, Your Certificates, Import"),
    ("Chrome, Chromium", "Settings, Privacy and security, Security, Manage certificates, "
     "Your certificates, Import"),
    ("Safari, macOS", "open the file: it goes into the login keychain"),
    ("Windows", "open the file: it goes into your personal store, for Edge and Chrome"),
)  # fmt: skip
"""Where each browser takes it."""
