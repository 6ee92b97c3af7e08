"""Writes what every active case's account holds as Parquet, in blocks, so that a million accounts need little memory.

The figures, the file and the alerts of one check are of one moment: they share one database snapshot.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, literal, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.balances.low_balance_alerts import AlertChanges, update_alerts
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.tables import Account, Case

if TYPE_CHECKING:
    import pandas

BLOCK = 50_000
"""Accounts held in memory at once."""
WORST_SHOWN = 20
BRACKETS_CENTS = (0, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000)
"""Where the bars of the histogram end; the last bar has no end."""
COLUMNS = ("case_id", "case_number", "account_id", "balance_cents", "minimum_balance_cents", "shortfall_cents")
_ONE_CHECK_AT_A_TIME = 7_305_402


@dataclass
class BalanceSheet:
    """What one check saw; money in cents. Bars count accounts by bracket: all of them, and those below minimum."""

    accounts: int = 0
    balance_cents: int = 0
    minimum_balance_cents: int = 0
    below_minimum: int = 0
    shortfall_cents: int = 0
    worst: list[dict[str, Any]] = field(default_factory=list)
    bars: list[int] = field(default_factory=lambda: [0] * (len(BRACKETS_CENTS) + 1))
    bars_below: list[int] = field(default_factory=lambda: [0] * (len(BRACKETS_CENTS) + 1))
    alerts: AlertChanges = field(default_factory=AlertChanges)


def take_balances(sessions: Sessions, path: Path, *, block: int = BLOCK) -> BalanceSheet:
    """Write every active case's balance, minimum and shortfall to `path` as Parquet; open and resolve alerts.

    Run twice it changes nothing the second time; of two at once, the second waits for the first.
    """
    # Loading these takes many seconds on a busy machine, and the database ends a transaction that idles for ten.
    import numpy  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    return run_in_transaction(sessions, lambda session: _take(session, path, block))


def _take(session: Session, path: Path, block: int) -> BalanceSheet:
    # A check that waited here may find the other's alerts newer than its own snapshot; `run_in_transaction` retries it.
    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    session.execute(select(func.pg_advisory_xact_lock(_ONE_CHECK_AT_A_TIME)))
    import pyarrow
    from pyarrow import parquet

    whole = pyarrow.int64()
    schema = pyarrow.schema([(name, pyarrow.string() if name == "case_number" else whole) for name in COLUMNS])
    sheet = BalanceSheet()
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for frame in _frames(session, block):
            writer.write_table(pyarrow.Table.from_pandas(frame, schema=schema, preserve_index=False))
            _add(sheet, frame)
    sheet.alerts = update_alerts(session)
    return sheet


def _frames(session: Session, block: int) -> "Iterator[pandas.DataFrame]":
    """Yield the accounts of active cases in the order of their ids, a frame a block.

    PostgreSQL hands over each block as one row of arrays: a row an account would take twice as long to read.
    """
    import pandas

    after = 0
    while True:
        accounts = (
            select(Case.id, Case.case_number, Account.id.label("account_id"))
            .add_columns(Account.balance_cents, Account.minimum_balance_cents)
            .join(Account, Account.case_id == Case.id)
            .where(Case.status == "active", Account.id > literal(after))
            .order_by(Account.id)
            .limit(block)
            .subquery()
        )
        arrays = session.execute(select(*(func.array_agg(column) for column in accounts.c))).one()
        if arrays[0] is None:
            return
        frame = pandas.DataFrame(dict(zip(COLUMNS, arrays, strict=False)))
        frame["shortfall_cents"] = (frame.minimum_balance_cents - frame.balance_cents).clip(lower=0)
        yield frame
        after = int(frame.account_id.iloc[-1])


def _add(sheet: BalanceSheet, frame: "pandas.DataFrame") -> None:
    """Count one block in."""
    import numpy

    short = frame[frame.shortfall_cents > 0]
    sheet.accounts += len(frame)
    sheet.balance_cents += int(frame.balance_cents.sum())
    sheet.minimum_balance_cents += int(frame.minimum_balance_cents.sum())
    sheet.below_minimum += len(short)
    sheet.shortfall_cents += int(short.shortfall_cents.sum())
    for bars, balances in ((sheet.bars, frame.balance_cents), (sheet.bars_below, short.balance_cents)):
        places = numpy.searchsorted(BRACKETS_CENTS, balances.to_numpy(), side="right")
        for place, count in enumerate(numpy.bincount(places, minlength=len(bars))):
            bars[place] += int(count)
    worst = short.nlargest(WORST_SHOWN, "shortfall_cents")
    sheet.worst += [dict(zip(COLUMNS, row, strict=True)) for row in worst[list(COLUMNS)].itertuples(index=False)]
    sheet.worst.sort(key=lambda row: (-row["shortfall_cents"], row["account_id"]))
    del sheet.worst[WORST_SHOWN:]
