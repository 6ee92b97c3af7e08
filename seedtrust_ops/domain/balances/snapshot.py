"""Writes the balance of every active case's account to Parquet, in blocks so that large portfolios need little memory.

The figures, the file and the alerts share one database snapshot, so they describe the same moment.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, literal, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.balances.low_balance_alerts import AlertChanges, update_alerts
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.locks import Lock, hold_lock
from seedtrust_ops.domain.sql_ranges import cents_between
from seedtrust_ops.tables import Account, Case
from seedtrust_ops.tables.user_text import cut_text

if TYPE_CHECKING:
    import pandas

ACCOUNTS_PER_BLOCK = 50_000
"""Accounts held in memory at once."""
MAX_WORST_SHOWN = 20
BUCKET_BOUNDS_CENTS = (0, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000)
"""Upper bounds of the histogram's buckets; the last bucket is open-ended."""
COLUMNS = ("case_id", "case_number", "account_id", "balance_cents", "minimum_balance_cents", "shortfall_cents")
GOOD_COLOR, BELOW_MINIMUM_COLOR = "#2f6f8f", "#c8553d"


@dataclass
class BalanceSnapshot:
    """Totals in cents, and the number of accounts per balance bucket: all accounts, and those below their minimum."""

    accounts: int = 0
    balance_cents: int = 0
    minimum_balance_cents: int = 0
    below_minimum: int = 0
    shortfall_cents: int = 0
    worst: list[dict[str, Any]] = field(default_factory=list)
    bucket_counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKET_BOUNDS_CENTS) + 1))
    below_minimum_counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKET_BOUNDS_CENTS) + 1))
    alerts: AlertChanges = field(default_factory=AlertChanges)


def write_balance_snapshot(sessions: Sessions, path: Path, *, block: int = ACCOUNTS_PER_BLOCK) -> BalanceSnapshot:
    """Write every active case's balance, minimum and shortfall to `path` as Parquet; open and resolve alerts.

    A second run changes nothing more. A concurrent run waits for the first.
    """
    # Imported before the transaction: it can take many seconds on a busy machine, and the database ends a transaction
    # that idles for ten.
    import numpy  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    return run_in_transaction(sessions, lambda session: _write(session, path, block))


def _write(session: Session, path: Path, block: int) -> BalanceSnapshot:
    # If this waits for the lock, the other run's alerts may be newer than this snapshot; `run_in_transaction` then
    # retries.
    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    hold_lock(session, Lock.BALANCE_SNAPSHOT)
    import pyarrow
    from pyarrow import parquet

    integer = pyarrow.int64()
    schema = pyarrow.schema([(name, pyarrow.string() if name == "case_number" else integer) for name in COLUMNS])
    snapshot = BalanceSnapshot()
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for frame in _frames(session, block):
            writer.write_table(pyarrow.Table.from_pandas(frame, schema=schema, preserve_index=False))
            _add(snapshot, frame)
    snapshot.alerts = update_alerts(session)
    return snapshot


def _frames(session: Session, block: int) -> "Iterator[pandas.DataFrame]":
    """Yield the accounts of active cases ordered by id, one data frame per block.

    PostgreSQL returns each block as one row of arrays; one row per account would take twice as long to read.
    """
    import pandas

    after = 0
    while True:
        accounts = (
            select(Case.id, cut_text(Case.case_number).label("case_number"), Account.id.label("account_id"))
            .add_columns(
                Account.balance_cents,
                Account.minimum_balance_cents,
                func.greatest(cents_between(Account.balance_cents, Account.minimum_balance_cents), 0),
            )
            .join(Account, Account.case_id == Case.id)
            .where(Case.status == "active", Account.id > literal(after))
            .order_by(Account.id)
            .limit(block)
            .subquery()
        )
        arrays = session.execute(select(*(func.array_agg(column) for column in accounts.c))).one()
        if arrays[0] is None:
            return
        frame = pandas.DataFrame(dict(zip(COLUMNS, arrays, strict=True)))
        yield frame
        after = int(frame.account_id.iloc[-1])


def _add(snapshot: BalanceSnapshot, frame: "pandas.DataFrame") -> None:
    """Add one block to the totals."""
    import numpy

    below = frame[frame.shortfall_cents > 0]
    snapshot.accounts += len(frame)
    snapshot.balance_cents += _sum(frame.balance_cents)
    snapshot.minimum_balance_cents += _sum(frame.minimum_balance_cents)
    snapshot.below_minimum += len(below)
    snapshot.shortfall_cents += _sum(below.shortfall_cents)
    for counts, balances in (
        (snapshot.bucket_counts, frame.balance_cents),
        (snapshot.below_minimum_counts, below.balance_cents),
    ):
        buckets = numpy.searchsorted(BUCKET_BOUNDS_CENTS, balances.to_numpy(), side="right")
        for bucket, count in enumerate(numpy.bincount(buckets, minlength=len(counts))):
            counts[bucket] += int(count)
    worst = below.nlargest(MAX_WORST_SHOWN, "shortfall_cents")
    snapshot.worst += [dict(zip(COLUMNS, row, strict=True)) for row in worst[list(COLUMNS)].itertuples(index=False)]
    snapshot.worst.sort(key=lambda row: (-row["shortfall_cents"], row["account_id"]))
    del snapshot.worst[MAX_WORST_SHOWN:]


def _sum(cents: "pandas.Series[int]") -> int:
    # In Python's integers: the sum of two amounts may be more than 64 bits hold.
    return sum(cents.tolist())


def render_histogram(snapshot: BalanceSnapshot) -> bytes:
    """Return a PNG with one bar per balance bucket; accounts below their minimum have another color."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 3.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    counts, below_counts = snapshot.bucket_counts, snapshot.below_minimum_counts
    above_counts = [count - below for count, below in zip(counts, below_counts, strict=True)]
    positions = range(len(counts))
    axes.bar(positions, below_counts, color=BELOW_MINIMUM_COLOR, label=f"below minimum ({snapshot.below_minimum:,})")
    axes.bar(
        positions,
        above_counts,
        bottom=below_counts,
        color=GOOD_COLOR,
        label=f"at or above minimum ({snapshot.accounts - snapshot.below_minimum:,})",
    )
    for position, count in enumerate(counts):
        if count:
            axes.annotate(f"{count:,}", (position, count), ha="center", va="bottom", fontsize=8)
    axes.set_xticks(list(positions), _labels(), fontsize=8, parse_math=False)
    axes.set_title("Active case accounts by balance", loc="left", fontsize=11)
    axes.set_ylabel("Accounts")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.12)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(lambda value, _position: f"{value:,.0f}")
    axes.legend(frameon=False, fontsize=9)
    png = BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _labels() -> list[str]:
    bounds = [f"${cents / 100_000:g}k" if cents else "$0" for cents in BUCKET_BOUNDS_CENTS]
    return ["below $0", *(f"{low} to {high}" for low, high in pairwise(bounds)), f"over {bounds[-1]}"]
