"""Certificates of a throw-away authority."""

from __future__ import annotations

import functools
import ssl

import trustme


@functools.cache
def _authority() -> trustme.CA:
    return trustme.CA()


def authority_pem() -> str:
    """What a client trusts, for a program of its own."""
    return _authority().cert_pem.bytes().decode()


def contexts(*names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context for these host names, and a client's that trusts the authority."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority().issue_cert(*names).configure_cert(server)
    client = ssl.create_default_context()
    _authority().configure_trust(client)
    return server, client
