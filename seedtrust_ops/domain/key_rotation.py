"""Re-encrypts every encrypted account number with the newest key, one page at a time, while jobs keep running.

It decides which tokens to re-encrypt and verifies the result. The encryption itself is in
`resources/field_encryption`; this module never sees a decrypted number.
See docs/decisions/key-rotation.md.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from sqlalchemy import BigInteger, Text, func, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from seedtrust_ops.domain.audit import Operator, attest
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.sql_arrays import array_table
from seedtrust_ops.errors import DamagedToken, UnreadableToken
from seedtrust_ops.tables import HuntingtonTransaction, TransferEvidence

PAGE_SIZE = 1_000
MAX_PASSES = 3
"""The first pass skips locked rows; the others wait for them. Rows still left after the third pass are being rewritten
continuously by an application that still encrypts with an older key."""


@dataclass(frozen=True)
class _EncryptedColumn:
    """A column of tokens, and the column with the id of the transaction that each one belongs to."""

    transaction_id: InstrumentedAttribute[int]
    token: InstrumentedAttribute[str]


ENCRYPTED_COLUMNS = (
    _EncryptedColumn(HuntingtonTransaction.id, HuntingtonTransaction.account_number_encrypted),
    _EncryptedColumn(TransferEvidence.transaction_id, TransferEvidence.account_number_encrypted),
)

ProgressCallback = Callable[[int], None]


class KeyRing(Protocol):
    """The keys of the encrypted columns; index 0 is the newest key."""

    def key_index(self, token: str) -> int:
        """Return the index of the key that encrypted `token`, or raise `UnreadableToken`; does not decrypt it."""
        ...

    def reencrypt(self, token: str) -> str:
        """Return a token with the same content, encrypted with the newest key, or raise `UnreadableToken`."""
        ...


@dataclass
class KeyUsage:
    """How many stored tokens each key decrypts, and the transactions whose token no key decrypts."""

    tokens: Counter[int] = field(default_factory=Counter)
    """The number of tokens per key index; 0 is the newest key."""
    unknown_key_transactions: list[int] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)

    @property
    def older_key_count(self) -> int:
        """The number of tokens that still need to be re-encrypted."""
        return self.tokens.total() - self.tokens[0]

    @property
    def token_count(self) -> int:
        """The number of stored tokens, readable or not."""
        return self.tokens.total() + len(self.unknown_key_transactions) + len(self.damaged)

    @property
    def is_readable(self) -> bool:
        """Whether every token can be decrypted with one of the keys."""
        return not self.unknown_key_transactions and not self.damaged


@dataclass(frozen=True)
class Rotation:
    """How many tokens were re-encrypted, and the key usage when all tokens were checked again afterwards."""

    reencrypted: int
    usage: KeyUsage

    @property
    def is_complete(self) -> bool:
        """Whether every token is encrypted with the newest key."""
        return self.usage.is_readable and self.usage.older_key_count == 0


def count_tokens(session: Session) -> int:
    """Return the number of stored tokens."""
    return sum(session.scalars(select(func.count(one.token))).one() for one in ENCRYPTED_COLUMNS)


def count_key_usage(
    sessions: Sessions, ring: KeyRing, on_progress: ProgressCallback = lambda _tokens: None
) -> KeyUsage:
    """Return which keys are in use; nothing is changed. `on_progress` is called with the tokens of each page."""
    usage = KeyUsage()
    for column in ENCRYPTED_COLUMNS:
        after = 0
        while page := run_in_transaction(sessions, partial(_next_page, column=column, after=after)):
            _count_page(usage, ring, page)
            after = max(page)
            on_progress(len(page))
    return usage


def rotate(
    sessions: Sessions,
    ring: KeyRing,
    on_progress: ProgressCallback = lambda _tokens: None,
    *,
    operator: Operator | None = None,
) -> Rotation:
    """Re-encrypt every token that an older key encrypted, then check all tokens again.

    Each page is its own database transaction, so this can be interrupted and repeated at any time. Rows that a worker
    has locked, or changed meanwhile, are left for the next pass. `updated_at` is not changed: auto-heal uses it to
    tell how long a transaction has been unchanged.

    Args:
        sessions: the application's database.
        ring: the keys.
        on_progress: called with the number of tokens of each page; the passes add up.
        operator: the person who rotates, for the audit, which has one event per rotation.

    Raises:
        UnknownOperator: if no active user has the operator's email address.
    """
    rotation = secrets.token_hex(8)

    def begin(session: Session) -> None:
        if operator is not None:
            attest(session, operator)
        session.execute(select(func.set_config("seedtrust.key_rotation", rotation, True)))

    reencrypted = 0
    for number in range(MAX_PASSES):
        for column in ENCRYPTED_COLUMNS:
            after = 0
            reencrypt_page = partial(_reencrypt_page, column=column, ring=ring, skip_locked=number == 0, begin=begin)
            while (done := run_in_transaction(sessions, partial(reencrypt_page, after=after))).tokens:
                reencrypted += done.reencrypted
                after = done.last_id
                on_progress(done.tokens)
        usage = count_key_usage(sessions, ring, on_progress)
        if usage.older_key_count == 0:
            break
    return Rotation(reencrypted, usage)


@dataclass(frozen=True)
class _Page:
    """How many tokens were read and re-encrypted in one database transaction, and the last transaction id."""

    tokens: int
    reencrypted: int
    last_id: int


def _next_page(session: Session, column: _EncryptedColumn, after: int) -> dict[int, str]:
    """Return the next page of tokens by transaction id; empty at the end."""
    rows = session.execute(
        select(column.transaction_id.label("id"), column.token.label("token"))
        .where(column.transaction_id > after)
        .order_by(column.transaction_id)
        .limit(PAGE_SIZE)
    )
    return {row.id: row.token for row in rows}


def _count_page(usage: KeyUsage, ring: KeyRing, page: Mapping[int, str]) -> None:
    for transaction_id, token in page.items():
        try:
            usage.tokens[ring.key_index(token)] += 1
        except DamagedToken:
            usage.damaged.append(transaction_id)
        except UnreadableToken:
            usage.unknown_key_transactions.append(transaction_id)


def _reencrypt_page(
    session: Session,
    column: _EncryptedColumn,
    ring: KeyRing,
    skip_locked: bool,
    begin: Callable[[Session], None],
    after: int,
) -> _Page:
    begin(session)
    page = _next_page(session, column, after)
    new_tokens = [
        (transaction_id, token, new)
        for transaction_id, token in page.items()
        if (new := _reencrypt_token(ring, token)) is not None
    ]
    return _Page(len(page), _store(session, column, new_tokens, skip_locked=skip_locked), max(page, default=after))


def _reencrypt_token(ring: KeyRing, token: str) -> str | None:
    try:
        return ring.reencrypt(token) if ring.key_index(token) > 0 else None
    except UnreadableToken:
        # Counted and listed by `count_key_usage`, which ends each pass.
        return None


def _store(
    session: Session, column: _EncryptedColumn, reencrypted: Sequence[tuple[int, str, str]], *, skip_locked: bool
) -> int:
    """Store new tokens (transaction id, old token, new token) if the old one is unchanged; return the count."""
    if not reencrypted:
        return 0
    table = column.token.class_
    new_tokens = array_table("new_tokens", [("id", BigInteger()), ("old", Text()), ("new", Text())], reencrypted)
    unchanged = (
        select(column.transaction_id.label("id"), new_tokens.c.new)
        .join(new_tokens, column.transaction_id == new_tokens.c.id)
        .where(column.token == new_tokens.c.old)
        .order_by(column.transaction_id)
        .with_for_update(of=table, key_share=True, skip_locked=skip_locked)
        .cte("unchanged")
    )
    stored = session.scalars(
        update(table)
        .where(column.transaction_id == unchanged.c.id)
        .values(account_number_encrypted=unchanged.c.new)
        .returning(column.transaction_id)
    )
    return len(stored.all())
