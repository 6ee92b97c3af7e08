"""Brings every encrypted account number under the newest key, a page at a time, while jobs run on.

It decides what is encrypted anew and what is proved by it; how a token is made is the key ring's, and nothing here
ever sees what one holds.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from sqlalchemy import BigInteger, Text, func, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.sql_arrays import array_table
from seedtrust_ops.errors import DamagedToken, UnreadableToken
from seedtrust_ops.tables import HuntingtonTransaction

PAGE = 1_000
PASSES = 3
"""The first pass takes what nobody holds, the others wait for what workers held. What is left after a third is being
written anew all the time, by an application that still encrypts with an older key."""

Progress = Callable[[int], None]


class KeyRing(Protocol):
    """The keys of encrypted columns, counted from 0, the newest."""

    def key_of(self, token: str) -> int:
        """Return which key opens `token`, or raise `UnreadableToken`; what it holds is not looked at."""
        ...

    def under_newest_key(self, token: str) -> str:
        """Return a token of the newest key that holds what `token` holds, or raise `UnreadableToken`."""
        ...


@dataclass
class KeyUse:
    """Which keys the stored tokens are under, and the transactions whose token no key opens."""

    tokens: Counter[int] = field(default_factory=Counter)
    """How many tokens each key opens, by its place: 0 is the newest."""
    of_unknown_keys: list[int] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)

    @property
    def under_older_keys(self) -> int:
        """How many tokens must still be encrypted anew."""
        return self.tokens.total() - self.tokens[0]

    @property
    def readable(self) -> bool:
        """Whether every token is opened by one of the keys."""
        return not self.of_unknown_keys and not self.damaged


@dataclass(frozen=True)
class Rotation:
    """How many tokens were encrypted anew, and how all of them stood when they were looked at once more afterwards."""

    renewed: int
    use: KeyUse

    @property
    def complete(self) -> bool:
        """Whether no token needs a key but the newest."""
        return self.use.readable and self.use.under_older_keys == 0


def count_tokens(session: Session) -> int:
    """Return how many tokens there are."""
    return session.scalars(select(func.count()).select_from(HuntingtonTransaction)).one()


def look_at_keys(sessions: Sessions, ring: KeyRing, looked_at: Progress = lambda _tokens: None) -> KeyUse:
    """Return which keys are in use; nothing is changed. `looked_at` is told how many tokens each page had."""
    use = KeyUse()
    after = 0
    while page := run_in_transaction(sessions, partial(_next_page, after=after)):
        _note(use, ring, page)
        after = max(page)
        looked_at(len(page))
    return use


def rotate(sessions: Sessions, ring: KeyRing, looked_at: Progress = lambda _tokens: None) -> Rotation:
    """Encrypt every token anew that is not under the newest key, then look at all of them once more.

    Each page is a transaction of its own, so whoever breaks this off loses nothing and calls it again. What a worker
    holds, or changed meanwhile, is left for the next pass. `updated_at` stays as it is: healing reads in it since when
    a transaction has been quiet.

    Args:
        sessions: the application's database.
        ring: the keys.
        looked_at: is told how many tokens each page had; the passes add up.
    """
    renewed = 0
    for number in range(PASSES):
        after = 0
        renew_page = partial(_renew_page, ring=ring, skip_locked=number == 0)
        while (done := run_in_transaction(sessions, partial(renew_page, after=after))).tokens:
            renewed += done.renewed
            after = done.last_id
            looked_at(done.tokens)
        use = look_at_keys(sessions, ring, looked_at)
        if use.under_older_keys == 0:
            break
    return Rotation(renewed, use)


@dataclass(frozen=True)
class _Page:
    """How many tokens were looked at and encrypted anew in one transaction, and the last transaction's id."""

    tokens: int
    renewed: int
    last_id: int


def _next_page(session: Session, after: int) -> dict[int, str]:
    """Return the tokens of the next transactions by their ids, none at the end."""
    rows = session.execute(
        select(HuntingtonTransaction.id, HuntingtonTransaction.account_number_encrypted)
        .where(HuntingtonTransaction.id > after)
        .order_by(HuntingtonTransaction.id)
        .limit(PAGE)
    )
    return {row.id: row.account_number_encrypted for row in rows}


def _note(use: KeyUse, ring: KeyRing, page: Mapping[int, str]) -> None:
    for transaction_id, token in page.items():
        try:
            use.tokens[ring.key_of(token)] += 1
        except DamagedToken:
            use.damaged.append(transaction_id)
        except UnreadableToken:
            use.of_unknown_keys.append(transaction_id)


def _renew_page(session: Session, ring: KeyRing, skip_locked: bool, after: int) -> _Page:
    page = _next_page(session, after)
    news = [
        (transaction_id, token, new)
        for transaction_id, token in page.items()
        if (new := _renewed(ring, token)) is not None
    ]
    return _Page(len(page), _store(session, news, skip_locked=skip_locked), max(page, default=after))


def _renewed(ring: KeyRing, token: str) -> str | None:
    try:
        return ring.under_newest_key(token) if ring.key_of(token) > 0 else None
    except UnreadableToken:
        # Counted and named by the look at all tokens that ends each pass.
        return None


def _store(session: Session, renewed: Sequence[tuple[int, str, str]], *, skip_locked: bool) -> int:
    """Store new tokens (transaction, old token, new one) where the old one still stands; return how many did."""
    if not renewed:
        return 0
    news = array_table("news", [("id", BigInteger()), ("old", Text()), ("new", Text())], renewed)
    still_old = (
        select(HuntingtonTransaction.id, news.c.new)
        .join(news, HuntingtonTransaction.id == news.c.id)
        .where(HuntingtonTransaction.account_number_encrypted == news.c.old)
        .order_by(HuntingtonTransaction.id)
        .with_for_update(of=HuntingtonTransaction, key_share=True, skip_locked=skip_locked)
        .cte("still_old")
    )
    stored = session.scalars(
        update(HuntingtonTransaction)
        .where(HuntingtonTransaction.id == still_old.c.id)
        .values(account_number_encrypted=still_old.c.new)
        .returning(HuntingtonTransaction.id)
    )
    return len(stored.all())
