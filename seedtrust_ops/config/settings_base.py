"""The base class of all settings groups, what refuses unencrypted connections, and validators that groups share.

Errors name the variable and its purpose, and never repeat its value, which may be a secret.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from seedtrust_ops.config.plaintext import is_tls_or_loopback
from seedtrust_ops.config.running_sandbox import is_unconfigured
from seedtrust_ops.errors import ConfigurationError

MAX_NUMBER = 1_000_000_000
"""No number is larger. A longer time than these seconds, 31 years, can't be calculated with everywhere."""


class SettingsGroup(BaseModel):
    """Environment variables that are needed together; reading the group validates all of them."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_default=True)

    supplied_by_sandbox: ClassVar[bool] = False
    """Whether a sandbox supplies its variables, so that one is to be started if nothing is configured."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Return the group's values from these environment variables; an empty one counts as not set.

        Raises:
            ConfigurationError: for each missing or invalid variable, its name, its purpose and what is wrong; and for
                each by which data would reach another machine unencrypted, unless SEEDTRUST_ALLOW_PLAINTEXT is 1.
        """
        variables = {name: value for name, value in environment.items() if value}
        try:
            group = cls.model_validate(variables)
        except ValidationError as error:
            problems = error.errors(include_input=False)
            # `from None`: pydantic's own message repeats the value, which may be a secret.
            raise ConfigurationError(cls._describe_all(problems, variables)) from None
        plaintext = group.find_plaintext(variables)
        if plaintext and not NetworkSettings.read(environment).allow_plaintext:
            refused = " ".join(f"{name} is refused: {reason}." for name, reason in plaintext.items())
            raise ConfigurationError(
                f"{refused} Set SEEDTRUST_ALLOW_PLAINTEXT=1 only if nobody else can read or change the traffic there."
            )
        return group

    @field_validator("*")
    @classmethod
    def _limit_numbers(cls, value: Any) -> Any:
        if isinstance(value, int | float) and value > MAX_NUMBER:
            raise ValueError(f"it is larger than {MAX_NUMBER:,}")
        return value

    def find_plaintext(self, environment: Mapping[str, str]) -> Mapping[str, str]:
        """Return what is wrong, and what to do, for each variable by which data would leave this machine unencrypted.

        `environment` has the variables that are set, for those that a library reads by itself.
        """
        return {}

    @classmethod
    def _describe_all(cls, problems: Sequence[Any], variables: Mapping[str, str]) -> str:
        is_missing = all(problem["type"] == "missing" for problem in problems)
        if not (is_missing and cls.supplied_by_sandbox and is_unconfigured(variables)):
            return " ".join(map(cls._describe, problems))
        *others, last = (f"{problem['loc'][0]} ({cls._purpose(problem)})" for problem in problems)
        return (
            "Nothing is configured here and no sandbox is running, so start one with `make dev` in another terminal, "
            f"or set {', '.join(others)}{' and ' if others else ''}{last}."
        )

    @classmethod
    def _purpose(cls, problem: Any) -> str:
        fields = cls.model_fields.values()
        described = (field.description for field in fields if field.validation_alias == problem["loc"][0])
        return next(filter(None, described), "a SeedTrust Ops setting")

    @classmethod
    def _describe(cls, problem: Any) -> str:
        variable, purpose = str(problem["loc"][0]), cls._purpose(problem)
        if problem["type"] == "missing":
            return f"{variable} is not set. It is {purpose}."
        reason = str(problem["msg"]).removeprefix("Value error, ")
        return f"{variable} is invalid: {reason}. It is {purpose}."


class NetworkSettings(SettingsGroup):
    """Whether data may leave this machine unencrypted."""

    allow_plaintext: bool = Field(
        default=False,
        validation_alias="SEEDTRUST_ALLOW_PLAINTEXT",
        description="1 to allow connections to other machines without TLS or without a verified certificate",
    )


def http_url(url: str) -> str:
    """Return `url` without a trailing slash.

    Raises:
        ValueError: if it is not an HTTP or HTTPS URL, or if it contains credentials, a query or a fragment.
    """
    try:
        parts = urlsplit(url)
        # Clients raise other errors than their own for a host that can't be looked up, such as api..example.
        is_valid = bool((parts.hostname or "").encode("idna")) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_valid = False
    if not is_valid or parts.scheme not in ("http", "https"):
        raise ValueError("it is not a URL that starts with http:// or https://") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        # URLs are shown to people and appear in logs, so they must not contain secrets.
        raise ValueError("it must not contain a user, password, query or fragment")
    return url.rstrip("/")


def find_plaintext_urls(urls: Mapping[str, str]) -> Mapping[str, str]:
    """Return what `SettingsGroup.find_plaintext` says of HTTP URLs, which are given by their variables."""
    reason = "it is not an https:// URL, so the traffic to another machine could be read on the way. Use https://"
    return {variable: reason for variable, url in urls.items() if not is_tls_or_loopback(url)}


def clean_api_key(key: SecretStr) -> SecretStr:
    """Return an API key without surrounding whitespace.

    Raises:
        ValueError: if it cannot be sent in an HTTP header.
    """
    text = key.get_secret_value().strip()
    if not text or not all("!" <= character <= "~" for character in text):
        raise ValueError("a key must consist of printable ASCII characters without spaces")
    return SecretStr(text)
