"""The default TLS context for HTTPS clients, loaded once per process because loading is slower than most requests."""

import ssl
from functools import cache

import httpx


@cache
def default_tls_context() -> ssl.SSLContext:
    """Return httpx's default TLS context."""
    return httpx.create_ssl_context()
