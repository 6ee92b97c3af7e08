"""Errors whose message is meant for people: one sentence with what failed, which record, and what to do.

Programming errors are not here; they stay the exceptions that Python raises.
"""

from typing import ClassVar


class SeedTrustError(Exception):
    """An error whose message is shown to people as is, without a traceback."""

    retry_may_help: ClassVar[bool] = False


class TransientError(SeedTrustError):
    """An external failure that may be over in a few seconds."""

    retry_may_help: ClassVar[bool] = True


class ConfigurationError(SeedTrustError):
    """An environment variable is missing or invalid."""


class InputError(SeedTrustError):
    """A person gave a value that can't be used; nothing is wrong with the system."""


class RunConfigRefused(InputError):
    """A run's configuration tries to change a setting that only the environment may set."""


class DatabaseUnreachable(TransientError):
    """The database could not be reached."""


class RowLocked(TransientError):
    """Another application held a row locked for longer than a statement waits."""


class SchemaOutOfDate(SeedTrustError):
    """The database is missing tables or columns that the code uses."""


class UnreadableToken(Exception):
    """A stored token cannot be decrypted with the configured keys; the message contains no part of it."""


class DamagedToken(UnreadableToken):
    """A stored token is not a valid Fernet token, so no key can decrypt it."""
