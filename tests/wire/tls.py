"""Certificates of a throw-away authority."""

from __future__ import annotations

import datetime
import functools
import ssl
import warnings

import trustme


@functools.cache
def _authority() -> trustme.CA:
    return trustme.CA()


def authority() -> trustme.CA:
    """Who has issued every certificate here."""
    return _authority()


def authority_pem() -> str:
    """What a client trusts, for a program of its own."""
    return _authority().cert_pem.bytes().decode()


def contexts(*names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context for these host names, and a client's that trusts the authority."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority().issue_cert(*names).configure_cert(server)
    client = ssl.create_default_context()
    client.minimum_version = ssl.TLSVersion.TLSv1_2  # some systems' Pythons leave it open
    _authority().configure_trust(client)
    return server, client


def server_context(*names: str, days: tuple[int, int] = (-1, 1)) -> ssl.SSLContext:
    """A server's context whose certificate holds from the first day to the second, counted from now."""
    now = datetime.datetime.now(datetime.timezone.utc)
    first, last = (now + datetime.timedelta(days=day) for day in days)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority().issue_cert(*names, not_before=first, not_after=last).configure_cert(context)
    return context


def self_signed() -> ssl.SSLContext:
    """A server's context with a certificate that nobody but itself vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own = trustme.CA()
    with own.cert_pem.tempfile() as cert, own.private_key_pem.tempfile() as key:
        context.load_cert_chain(cert, key)
    return context


def lowered(context: ssl.SSLContext, newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> ssl.SSLContext:
    """The same context, which now takes the oldest versions of TLS that OpenSSL still has, up to `newest`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = newest
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    return context
