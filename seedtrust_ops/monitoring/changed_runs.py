"""Pages through Dagster's run records in order of their last change, from any time on, without missing any.

Dagster's filter is an exclusive time, and many runs may have the same update time.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import dagster as dg

RECORDS_PER_PAGE = 500
TIMESTAMP_RESOLUTION = timedelta(microseconds=1)
"""The resolution of Dagster's update times."""

Page = Sequence[dg.RunRecord]


def changed_runs(instance: dg.DagsterInstance, after: datetime | None) -> Iterator[Page]:
    """Yield pages of the runs that changed after this time (UTC; None: all), the oldest change first.

    A record may be yielded twice if it changes meanwhile or shares its update time with others. A page has at most
    RECORDS_PER_PAGE records.
    """
    while True:
        page = instance.get_run_records(
            dg.RunsFilter(updated_after=after), limit=RECORDS_PER_PAGE, order_by="update_timestamp", ascending=True
        )
        if page:
            yield page
        if len(page) < RECORDS_PER_PAGE:
            return
        newest = page[-1].update_timestamp
        if page[0].update_timestamp == newest:
            # More runs share this update time than fit on a page, so they are paged in creation order.
            yield from _changed_at(instance, newest)
            after = newest
        else:
            after = newest - TIMESTAMP_RESOLUTION


def _changed_at(instance: dg.DagsterInstance, time: datetime) -> Iterator[Page]:
    cursor: str | None = None
    while True:
        page = instance.get_run_records(
            dg.RunsFilter(updated_after=time - TIMESTAMP_RESOLUTION, updated_before=time + TIMESTAMP_RESOLUTION),
            limit=RECORDS_PER_PAGE,
            ascending=True,
            cursor=cursor,
        )
        if page:
            yield page
        if len(page) < RECORDS_PER_PAGE:
            return
        cursor = page[-1].dagster_run.run_id
