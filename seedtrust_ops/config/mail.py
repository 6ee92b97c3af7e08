"""The mail server that takes SeedTrust's letters.

Encryption is on unless it is switched off by name.
"""

import re
from email.utils import parseaddr

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from seedtrust_ops.config.settings_base import SettingsGroup

_ADDRESS = re.compile(r"[!-?A-~]+@[!-?A-~]+")


class MailSettings(SettingsGroup):
    """The mail server that takes our letters, and who they are from."""

    host: str = Field(
        validation_alias="SMTP_HOST",
        description="the name of the mail server that takes SeedTrust's letters, such as smtp.example.com",
    )
    port: int = Field(
        default=587,
        ge=1,
        le=65_535,
        validation_alias="SMTP_PORT",
        description="the port that the mail server listens on",
    )
    username: str | None = Field(
        default=None,
        validation_alias="SMTP_USERNAME",
        description="the name that the mail server knows SeedTrust by; unset where it asks for none",
    )
    password: SecretStr | None = Field(
        default=None,
        validation_alias="SMTP_PASSWORD",
        description="the password that belongs to SMTP_USERNAME",
    )
    starttls: bool = Field(
        default=True,
        validation_alias="SMTP_STARTTLS",
        description="0 to hand letters in without encryption, which only a server on this machine should be spoken to",
    )
    email_from: str = Field(
        validation_alias="EMAIL_FROM",
        description="who letters are from, such as SeedTrust Escrow <escrow@seedtrust.example>",
    )

    @field_validator("email_from")
    @classmethod
    def _is_an_address(cls, text: str) -> str:
        name, address = parseaddr(text)
        if not _ADDRESS.fullmatch(address) or not (name + text).isprintable():
            raise ValueError("it is no address like escrow@seedtrust.example")
        return text

    @field_validator("password")
    @classmethod
    def _belongs_to_a_name(cls, password: SecretStr | None, others: ValidationInfo) -> SecretStr | None:
        if password is not None and others.data.get("username") is None:
            raise ValueError("SMTP_USERNAME is not set, and the two belong together")
        return password
