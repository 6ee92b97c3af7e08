"""`seedtrust-ops keys`: shows which keys encrypt the stored account numbers, and rotates to the newest key.

The rotation itself is in `domain/key_rotation.py`.
See docs/decisions/key-rotation.md.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from seedtrust_ops.cli.operator_session import As, current_operator
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.formatting import pluralize

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

    from seedtrust_ops.domain.audit import Operator
    from seedtrust_ops.domain.key_rotation import KeyUsage
    from seedtrust_ops.resources.field_encryption import FernetFieldCipher

keys = typer.Typer(no_args_is_help=True, help="Check and rotate the encryption keys of account numbers.")

MAX_LISTED_IDS = 200


class UnreadableTokens(SeedTrustError):
    """Stored account numbers are damaged, or encrypted with a key that is not in SEEDTRUST_FIELD_KEY."""


class OlderKeyInUse(SeedTrustError):
    """An application still encrypts account numbers with an older key."""


@keys.command()
def check() -> None:
    """Count the account numbers encrypted with each key of SEEDTRUST_FIELD_KEY.

    Nothing is changed. The exit code is 1 if an account number cannot be decrypted.
    """
    from seedtrust_ops.domain.key_rotation import count_key_usage

    with _open_tokens() as stored, _progress("Checking account numbers", stored.token_count) as advance:
        use = count_key_usage(stored.sessions, stored.cipher, advance)
    for index in range(stored.key_count):
        label = f"Key {index + 1}{' (newest)' if index == 0 else ''}"
        typer.echo(f"{label}: {_account_numbers(use.tokens[index])}.")
    _require_readable(use)


@keys.command()
def rotate(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count the account numbers that would be re-encrypted.")
    ] = False,
    as_: As = None,
) -> None:
    """Re-encrypt all account numbers with the newest key.

    You can interrupt it at any time and run it again. It tells you when old keys can be removed.
    """
    if dry_run:
        _preview_rotation()
    else:
        _rotate(current_operator(as_))


def _preview_rotation() -> None:
    from seedtrust_ops.domain.key_rotation import count_key_usage

    with _open_tokens() as stored, _progress("Checking account numbers", stored.token_count) as advance:
        use = count_key_usage(stored.sessions, stored.cipher, advance)
    typer.echo(f"{use.older_key_count:,} of {_account_numbers(stored.token_count)} would be re-encrypted.")
    _require_readable(use)


def _rotate(operator: "Operator") -> None:
    from seedtrust_ops.domain.key_rotation import rotate

    # Every account number is read twice: once to re-encrypt it, once to verify the result.
    with _open_tokens() as stored, _progress("Rotating account numbers", 2 * stored.token_count) as advance:
        rotation = rotate(stored.sessions, stored.cipher, advance, operator=operator)
    # Workers store more numbers while this runs, so the count from before it would be too low.
    typer.echo(f"Re-encrypted {rotation.reencrypted:,} of {_account_numbers(rotation.usage.token_count)}.")
    _require_readable(rotation.usage)
    if not rotation.is_complete:
        raise OlderKeyInUse(
            f"During the rotation, an application encrypted {_account_numbers(rotation.usage.older_key_count)} "
            "with an older key. Put the newest key first in the SEEDTRUST_FIELD_KEY of every application, restart "
            "them, and run this command again. Keep the older keys until then."
        )
    old_keys = "Old keys can be removed from SEEDTRUST_FIELD_KEY once no application encrypts with them."
    only_key = "It is the only key in SEEDTRUST_FIELD_KEY."
    typer.echo(
        "Verified: every account number is encrypted with the newest key. "
        f"{old_keys if stored.key_count > 1 else only_key}"
    )


@dataclass(frozen=True)
class _StoredTokens:
    """The database with the tokens, the cipher that decrypts them, and the number of keys and tokens."""

    sessions: "sessionmaker[Session]"
    cipher: "FernetFieldCipher"
    key_count: int
    token_count: int


@contextmanager
def _open_tokens() -> Iterator[_StoredTokens]:
    """Yield access to the encrypted account numbers; database errors in the block become one-line messages."""
    from seedtrust_ops.config import get_settings
    from seedtrust_ops.database.engine import application_engine, application_sessions, translate_database_errors
    from seedtrust_ops.domain.key_rotation import count_tokens
    from seedtrust_ops.resources.field_encryption import FernetFieldCipher

    configured = get_settings().field_keys.keys
    cipher = FernetFieldCipher(configured)
    with translate_database_errors(application_engine().url):
        sessions = application_sessions()
        with sessions() as session:
            count = count_tokens(session)
        yield _StoredTokens(sessions, cipher, len(configured), count)


def _require_readable(use: "KeyUsage") -> None:
    if use.is_readable:
        return
    problems = []
    if use.unknown_key_transactions:
        problems.append(
            f"No key in SEEDTRUST_FIELD_KEY decrypts {_account_numbers(len(use.unknown_key_transactions))} "
            f"(transaction IDs: {_list_ids(use.unknown_key_transactions)}). Add the missing key to the end of the "
            "variable, and run this command again."
        )
    if use.damaged:
        problems.append(
            f"No key can decrypt {_account_numbers(len(use.damaged))}, because the stored data is damaged "
            f"(transaction IDs: {_list_ids(use.damaged)}). Ask the payees for their account numbers and "
            "enter them again."
        )
    raise UnreadableTokens(" ".join([*problems, "Do not remove any key until this is resolved."]))


def _account_numbers(count: int) -> str:
    return pluralize(count, "account number")


def _list_ids(transaction_ids: Sequence[int]) -> str:
    listed = ", ".join(str(one) for one in transaction_ids[:MAX_LISTED_IDS])
    more = len(transaction_ids) - MAX_LISTED_IDS
    return f"{listed} and {more} more" if more > 0 else listed


@contextmanager
def _progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar until the block ends; yield the function that advances it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total)
        yield lambda tokens: progress.advance(task, tokens)
