"""The mail server that sends SeedTrust's email; STARTTLS is on unless it is switched off explicitly."""

import re
from email.utils import parseaddr

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from seedtrust_ops.config.settings_base import SettingsGroup

_ADDRESS = re.compile(r"[!-?A-~]+@[!-?A-~]+")


class MailSettings(SettingsGroup):
    """The mail server (SMTP) and the sender address of SeedTrust's email."""

    host: str = Field(
        validation_alias="SMTP_HOST",
        description="the hostname of the mail server that sends SeedTrust's email, such as smtp.example.com",
    )
    port: int = Field(
        default=587,
        ge=1,
        le=65_535,
        validation_alias="SMTP_PORT",
        description="the port of the mail server",
    )
    username: str | None = Field(
        default=None,
        validation_alias="SMTP_USERNAME",
        description="the login name for the mail server; leave it unset if the server requires no login",
    )
    password: SecretStr | None = Field(
        default=None,
        validation_alias="SMTP_PASSWORD",
        description="the password for SMTP_USERNAME",
    )
    starttls: bool = Field(
        default=True,
        validation_alias="SMTP_STARTTLS",
        description="0 to send email without encryption, which is safe only with a mail server on this machine",
    )
    email_from: str = Field(
        validation_alias="EMAIL_FROM",
        description="the sender of all email, such as SeedTrust Escrow <escrow@seedtrust.example>",
    )

    @field_validator("email_from")
    @classmethod
    def _require_address(cls, text: str) -> str:
        name, address = parseaddr(text)
        if not _ADDRESS.fullmatch(address) or not (name + text).isprintable():
            raise ValueError("it is not an email address like escrow@seedtrust.example")
        return text

    @field_validator("password")
    @classmethod
    def _require_username(cls, password: SecretStr | None, others: ValidationInfo) -> SecretStr | None:
        if password is not None and others.data.get("username") is None:
            raise ValueError("SMTP_USERNAME is not set, and a password requires a login name")
        return password
