"""Pages through Dagster's run records in the order in which they changed, from any moment on, missing none.

Dagster's cursor is a time that leaves itself out, and many runs may bear one and the same time.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import dagster as dg

RECORDS_A_PAGE = 500
TICK = timedelta(microseconds=1)
"""The smallest step of Dagster's update times."""

Page = Sequence[dg.RunRecord]


def changed_runs(instance: dg.DagsterInstance, after: datetime | None) -> Iterator[Page]:
    """Yield the records of runs that changed after this moment (UTC; None: all), the oldest change first.

    A record may come twice, where it changes meanwhile or shares its time with others; no page has more than
    RECORDS_A_PAGE.
    """
    while True:
        page = instance.get_run_records(
            dg.RunsFilter(updated_after=after), limit=RECORDS_A_PAGE, order_by="update_timestamp", ascending=True
        )
        if page:
            yield page
        if len(page) < RECORDS_A_PAGE:
            return
        newest = page[-1].update_timestamp
        if page[0].update_timestamp == newest:
            # More runs of one and the same time than a page holds are told apart by their order of creation.
            yield from _changed_at(instance, newest)
            after = newest
        else:
            after = newest - TICK


def _changed_at(instance: dg.DagsterInstance, moment: datetime) -> Iterator[Page]:
    cursor: str | None = None
    while True:
        page = instance.get_run_records(
            dg.RunsFilter(updated_after=moment - TICK, updated_before=moment + TICK),
            limit=RECORDS_A_PAGE,
            ascending=True,
            cursor=cursor,
        )
        if page:
            yield page
        if len(page) < RECORDS_A_PAGE:
            return
        cursor = page[-1].dagster_run.run_id
