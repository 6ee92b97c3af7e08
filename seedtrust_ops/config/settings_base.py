"""What every group of settings does alike: it names what is missing or wrong, and never repeats a value.

Here too are the checks that several groups share.
"""

from ipaddress import ip_address
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from seedtrust_ops.errors import ConfigurationError


class SettingsGroup(BaseSettings):
    """Variables that are needed together; reading a group names the first that is missing or wrong."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore")

    @classmethod
    def read(cls) -> Self:
        """Return the group as the environment has it.

        Raises:
            ConfigurationError: naming the variable, what it is for, and what is wrong with it.
        """
        try:
            return cls()
        except ValidationError as error:
            problems = [cls._sentence(problem) for problem in error.errors(include_input=False)]
            # `from None`: pydantic's own text would repeat the value, and the value may be a secret.
            raise ConfigurationError(" ".join(problems)) from None

    @classmethod
    def _sentence(cls, problem: Any) -> str:
        variable = str(problem["loc"][0])
        purpose = next(
            (
                field.description
                for field in cls.model_fields.values()
                if field.validation_alias == variable and field.description
            ),
            "a setting of this project",
        )
        if problem["type"] == "missing":
            return f"{variable} is not set. It is {purpose}."
        reason = str(problem["msg"]).removeprefix("Value error, ")
        return f"{variable} can't be used: {reason}. It is {purpose}."


def http_address(url: str) -> str:
    """Return `url` without a last slash; ValueError where it is no plain http or https address."""
    try:
        parts = urlsplit(url)
        sound = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    if not sound or parts.scheme not in ("http", "https"):
        raise ValueError("it is no address that starts with http:// or https://") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        # The address is shown to people and in logs, so nothing secret may be in it.
        raise ValueError("it must hold no user, password, query or fragment")
    return url.rstrip("/")


def is_private(url: str) -> bool:
    """Return whether nobody on the way can read what is sent to `url`: https, or an address of this machine."""
    parts = urlsplit(url)
    try:
        return parts.scheme == "https" or ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname == "localhost"


def header_key(key: SecretStr) -> SecretStr:
    """Return a key without what people leave at its ends; ValueError where it does not fit into a header."""
    text = key.get_secret_value().strip()
    if not text or not all("!" <= character <= "~" for character in text):
        raise ValueError("a key has only printable ASCII characters and no spaces")
    return SecretStr(text)
