"""The base class of all settings groups, and the validators that several groups share.

Errors name the variable and its purpose, and never repeat its value, which may be a secret.
"""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from seedtrust_ops.errors import ConfigurationError

_ADDRESS = re.compile(r"[!-?A-~]+@[!-?A-~]+")


class SettingsGroup(BaseModel):
    """Environment variables that are needed together; reading the group validates all of them."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_default=True)

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Return the group's values from these environment variables; an empty one counts as not set.

        Raises:
            ConfigurationError: for each missing or invalid variable, its name, its purpose and what is wrong.
        """
        try:
            return cls.model_validate({name: value for name, value in environment.items() if value})
        except ValidationError as error:
            messages = [cls._describe(problem) for problem in error.errors(include_input=False)]
            # `from None`: pydantic's own message repeats the value, which may be a secret.
            raise ConfigurationError(" ".join(messages)) from None

    @classmethod
    def _describe(cls, problem: Any) -> str:
        variable = str(problem["loc"][0])
        purpose = next(
            (
                field.description
                for field in cls.model_fields.values()
                if field.validation_alias == variable and field.description
            ),
            "a SeedTrust Ops setting",
        )
        if problem["type"] == "missing":
            return f"{variable} is not set. It is {purpose}."
        reason = str(problem["msg"]).removeprefix("Value error, ")
        return f"{variable} is invalid: {reason}. It is {purpose}."


def http_url(url: str) -> str:
    """Return `url` without a trailing slash.

    Raises:
        ValueError: if it is not an HTTP or HTTPS URL, or if it contains credentials, a query or a fragment.
    """
    try:
        parts = urlsplit(url)
        is_valid = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_valid = False
    if not is_valid or parts.scheme not in ("http", "https"):
        raise ValueError("it is not a URL that starts with http:// or https://") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        # URLs are shown to people and appear in logs, so they must not contain secrets.
        raise ValueError("it must not contain a user, password, query or fragment")
    return url.rstrip("/")


def is_tls_or_loopback(url: str) -> bool:
    """Return whether requests to `url` cannot be read in transit: it uses HTTPS, or it is on this machine."""
    parts = urlsplit(url)
    try:
        return parts.scheme == "https" or ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname == "localhost"


def clean_api_key(key: SecretStr) -> SecretStr:
    """Return an API key without surrounding whitespace.

    Raises:
        ValueError: if it cannot be sent in an HTTP header.
    """
    text = key.get_secret_value().strip()
    if not text or not all("!" <= character <= "~" for character in text):
        raise ValueError("a key must consist of printable ASCII characters without spaces")
    return SecretStr(text)


def is_email_address(text: str) -> bool:
    """Return whether `text` is one address in ASCII, without a name or spaces."""
    return _ADDRESS.fullmatch(text) is not None
