"""The authorities that HTTPS servers are trusted by, read once a process: it takes longer than most requests do."""

import ssl
from functools import cache

import httpx


@cache
def certificates() -> ssl.SSLContext:
    """Return what httpx trusts where it is told nothing."""
    return httpx.create_ssl_context()
