"""`seedtrust-ops keys`: which keys encrypted account numbers are under, and how to bring all under the newest.

The commands are registered in `cli`; whatever is slow to import is imported inside them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from seedtrust_ops.errors import SeedTrustError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

    from seedtrust_ops.domain.key_rotation import KeyUse
    from seedtrust_ops.resources.field_encryption import FernetFieldCipher

keys = typer.Typer(no_args_is_help=True, help="The keys of encrypted account numbers: which are in use, and rotation.")

IDS_NAMED = 200


class TokensUnreadable(SeedTrustError):
    """Stored account numbers are damaged, or under a key that is not at hand."""


class OlderKeyInUse(SeedTrustError):
    """Account numbers are still being encrypted with an older key."""


@keys.command()
def check() -> None:
    """Count the stored account numbers under each key of SEEDTRUST_FIELD_KEY; nothing is changed."""
    from seedtrust_ops.domain.key_rotation import look_at_keys

    with _stored_tokens() as stored, _progress("Looking at tokens", stored.count) as looked_at:
        use = look_at_keys(stored.sessions, stored.ring, looked_at)
    for place in range(stored.keys):
        typer.echo(f"Key {place + 1}{' (the newest)' if place == 0 else ''}: {use.tokens[place]} account numbers.")
    _refuse_unreadable(use)


@keys.command()
def rotate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be encrypted anew.")] = False,
) -> None:
    """Encrypt every account number anew that is not under the newest key; break it off and repeat it at will."""
    if dry_run:
        _count_what_would_be_rotated()
    else:
        _rotate()


def _count_what_would_be_rotated() -> None:
    from seedtrust_ops.domain.key_rotation import look_at_keys

    with _stored_tokens() as stored, _progress("Looking at tokens", stored.count) as looked_at:
        use = look_at_keys(stored.sessions, stored.ring, looked_at)
    typer.echo(f"{use.under_older_keys} of {stored.count} account numbers would be encrypted anew.")
    _refuse_unreadable(use)


def _rotate() -> None:
    from seedtrust_ops.domain.key_rotation import rotate

    # Once to encrypt, and once more to see that nothing is left.
    with _stored_tokens() as stored, _progress("Rotating", 2 * stored.count) as looked_at:
        rotation = rotate(stored.sessions, stored.ring, looked_at)
    typer.echo(f"{rotation.renewed} of {stored.count} account numbers were encrypted anew.")
    _refuse_unreadable(rotation.use)
    if not rotation.complete:
        raise OlderKeyInUse(
            f"{rotation.use.under_older_keys} account numbers are under an older key again: an application still "
            "encrypts with it. Give every application the newest key first in its list and restart it, then run this "
            "again; keep the older keys until then."
        )
    may_go = "the old key can be removed from SEEDTRUST_FIELD_KEY, as soon as no application encrypts with it"
    only_one = "it is the only one in SEEDTRUST_FIELD_KEY"
    typer.echo(
        "All of them were looked at once more, and each is under the newest key: "
        f"{may_go if stored.keys > 1 else only_one}."
    )


@dataclass(frozen=True)
class _Stored:
    """Where the tokens are, what may open them with how many keys, and how many tokens there are."""

    sessions: "sessionmaker[Session]"
    ring: "FernetFieldCipher"
    keys: int
    count: int


@contextmanager
def _stored_tokens() -> Iterator[_Stored]:
    """Yield the database's tokens; trouble with it in the block is told in a sentence."""
    from seedtrust_ops.config import get_settings
    from seedtrust_ops.database.engine import application_engine, application_sessions, plain_database_errors
    from seedtrust_ops.domain.key_rotation import count_tokens
    from seedtrust_ops.resources.field_encryption import FernetFieldCipher

    configured = get_settings().field_keys.keys
    ring = FernetFieldCipher(configured)
    with plain_database_errors(application_engine().url):
        sessions = application_sessions()
        with sessions() as session:
            count = count_tokens(session)
        yield _Stored(sessions, ring, len(configured), count)


def _refuse_unreadable(use: "KeyUse") -> None:
    if use.readable:
        return
    sentences = []
    if use.of_unknown_keys:
        sentences.append(
            f"{len(use.of_unknown_keys)} account numbers are opened by no key in SEEDTRUST_FIELD_KEY (transactions "
            f"{_named(use.of_unknown_keys)}): add the key that they were encrypted with at its end and run this again."
        )
    if use.damaged:
        sentences.append(
            f"{len(use.damaged)} account numbers are damaged, and no key could open them (transactions "
            f"{_named(use.damaged)}): ask the payees for their account numbers and enter them again."
        )
    raise TokensUnreadable(" ".join([*sentences, "Remove no key until that is seen to."]))


def _named(transaction_ids: Sequence[int]) -> str:
    shown = ", ".join(str(one) for one in transaction_ids[:IDS_NAMED])
    more = len(transaction_ids) - IDS_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar until the block ends; yields what moves it on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda tokens: progress.advance(task, tokens)
