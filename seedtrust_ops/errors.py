"""The errors that people read: each is one sentence that says what happened, to what, and what to do.

Programming mistakes are not here; they stay the plain exceptions that Python raises.
"""

from typing import ClassVar


class SeedTrustError(Exception):
    """Trouble that a person should read about as it stands, without a traceback."""

    retry_may_help: ClassVar[bool] = False


class TransientError(SeedTrustError):
    """Trouble of the outside world that may be over in a few seconds."""

    retry_may_help: ClassVar[bool] = True


class ConfigurationError(SeedTrustError):
    """An environment variable is missing or makes no sense."""


class DatabaseUnreachable(TransientError):
    """The database gave no connection."""


class SchemaOutOfDate(SeedTrustError):
    """The database lacks tables or columns that the code uses."""


class UnreadableToken(Exception):
    """A stored token can't be decrypted with the keys at hand; the message shows no content."""


class DamagedToken(UnreadableToken):
    """A stored token is no Fernet token at all, so no key could open it."""
