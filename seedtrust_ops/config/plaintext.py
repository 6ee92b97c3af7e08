"""Which addresses send data unencrypted to another machine. What follows from it is in `settings_base`.

"Encrypted" means TLS with a verified certificate: without that, anyone who answers reads everything.
"""

from collections.abc import Mapping
from ipaddress import ip_address
from itertools import zip_longest
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy.engine import URL

VERIFIED_SSLMODE = "verify-full"
"""libpq's only mode that checks both who signed the certificate and whether it is the host's own."""


def is_loopback(host: str) -> bool:
    """Return whether the host name or IP address is this machine's own."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_tls_or_loopback(url: str) -> bool:
    """Return whether requests to `url` cannot be read in transit: it uses HTTPS, or it is on this machine."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" or is_loopback(parts.hostname or "")


def libpq_parameters(url: URL) -> Mapping[str, Any]:
    """Return the parameters that a connection to `url` gives to libpq; raises ArgumentError if they are invalid."""
    parameters: Mapping[str, Any] = url.get_dialect()().create_connect_args(url)[1]
    return parameters


def is_verified_or_local(url: URL, environment: Mapping[str, str]) -> bool:
    """Return whether a database connection cannot be read in transit: verified TLS, or every host is on this machine.

    What the URL leaves out, libpq takes from its own variables in `environment`.
    """
    parameters = libpq_parameters(url)

    def parameter(name: str) -> str:
        return str(parameters.get(name) or environment.get(f"PG{name.upper()}", ""))

    if parameter("sslmode") == VERIFIED_SSLMODE:
        return True
    # libpq takes a host from its name where the list of addresses leaves it out. A service is an entry of a file that
    # may name any host.
    addresses = zip_longest(parameter("hostaddr").split(","), parameter("host").split(","), fillvalue="")
    return not parameter("service") and all(
        host.startswith(("/", "@")) or host == "" or is_loopback(host)
        for host in (address or name for address, name in addresses)
    )
