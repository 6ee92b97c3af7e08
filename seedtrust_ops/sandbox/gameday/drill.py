"""Plays one trouble: causes it, waits until somebody notices and people are told, ends it, and sees the money right.

What the trouble is, is in `troubles`; how it is shown, in `showing`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from seedtrust_ops.jobs.process_huntington_batch import NAME as SENDING
from seedtrust_ops.sandbox.demo.environment import Stage
from seedtrust_ops.sandbox.demo.reconciliation import reconcile
from seedtrust_ops.sandbox.gameday.detection import LETTER, Notice
from seedtrust_ops.sandbox.gameday.incidents import CauseFailed, Trouble, queue_payments
from seedtrust_ops.sandbox.gameday.timeouts import NOTICED_WITHIN_SECONDS
from seedtrust_ops.tables import Alert, HuntingtonBatch, HuntingtonTransaction, JobRun, ReportRequest

LOOK_SECONDS = 0.3
TOLD_SECONDS = 40.0
"""How long after the notice the telling may take: an outbox is emptied by a tick."""
QUIET_SECONDS = 240.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """What became of one trouble; seconds are from the moment it was caused."""

    trouble: Trouble
    notice: Notice
    noticed_after_seconds: float | None
    left: str | None
    """What was still wrong when patience ended after the trouble's end; None where all is well again."""
    reconciled: bool
    failed_cause: str | None = None

    @property
    def limit_seconds(self) -> float:
        """Within what time it must be noticed."""
        return self.trouble.own_seconds + NOTICED_WITHIN_SECONDS

    @property
    def is_good(self) -> bool:
        """Whether it was noticed in time, told to people, is over, and no cent differs."""
        return (
            self.failed_cause is None
            and self.noticed_after_seconds is not None
            and self.noticed_after_seconds <= self.limit_seconds
            and bool(self.notice.told)
            and self.left is None
            and self.reconciled
        )


def play(stage: Stage, trouble: Trouble, say: Say) -> Result:
    """Play `trouble` on a quiet stage; return what became of it."""
    notice = Notice(trouble.rules, datetime.now(UTC))
    say(f"Causing: {trouble.name}")
    try:
        with trouble.cause(stage):
            # What a cause needed to get into position is not the trouble's time.
            notice.since = datetime.now(UTC)
            _wait(stage, notice, trouble)
            say(_in_words(notice))
        # The next batch goes through: that is what being over it means.
        queue_payments(stage)
    except CauseFailed as error:
        say(f"{trouble.name} could not be caused: {error}")
        return Result(trouble, notice, None, None, False, str(error))
    left = wait_until_quiet(stage)
    with stage.sessions() as session:
        reconciled = reconcile(session, stage.bank).agrees
    after = (notice.at - notice.since).total_seconds() if notice.at is not None else None
    say(f"{trouble.name} is over" if left is None else f"{trouble.name}: {left}")
    return Result(trouble, notice, after, left, reconciled)


def wait_for_first_batch(stage: Stage, seconds: float = QUIET_SECONDS) -> str | None:
    """Queue a batch and wait until JobRun tells that it was sent; return what is wrong, after so many seconds."""
    queue_payments(stage)
    sent = select(JobRun.id).where(JobRun.task_name == SENDING, JobRun.resolution == "COMPLETED")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with stage.sessions() as session:
            if session.scalars(sent).first() is not None:
                return None
        time.sleep(LOOK_SECONDS)
    return "the worker sent no batch"


def wait_until_quiet(stage: Stage, seconds: float = QUIET_SECONDS) -> str | None:
    """Wait until nothing is wrong or under way any more; return what is, after so many seconds."""
    deadline = time.monotonic() + seconds
    while (left := _what_is_left(stage)) is not None and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return left


def _wait(stage: Stage, notice: Notice, trouble: Trouble) -> None:
    deadline = time.monotonic() + trouble.own_seconds + NOTICED_WITHIN_SECONDS
    while notice.at is None and time.monotonic() < deadline:
        notice.look(stage)
        time.sleep(LOOK_SECONDS)
    if notice.at is None:
        return
    deadline = time.monotonic() + TOLD_SECONDS
    while time.monotonic() < deadline and not (LETTER in notice.told or (notice.told and not trouble.hears_mail)):
        time.sleep(LOOK_SECONDS)
        notice.look(stage)


def _what_is_left(stage: Stage) -> str | None:
    under_way = (
        select(func.count()).select_from(HuntingtonBatch).where(HuntingtonBatch.status.in_(("queued", "processing")))
    )
    unsettled = (
        select(func.count())
        .select_from(HuntingtonTransaction)
        .where(HuntingtonTransaction.status.in_(("processing", "submitted")))
    )
    reports = select(func.count()).select_from(ReportRequest).where(ReportRequest.status.in_((1, 2)))
    alerts = select(Alert.rule, Alert.subject).where(Alert.resolved_at.is_(None)).order_by(Alert.id)
    try:
        with stage.sessions() as session:
            for what, query in (("batches", under_way), ("transactions", unsettled), ("reports", reports)):
                if number := session.scalars(query).one():
                    return f"{number} {what} are not finished"
            open_alerts = session.execute(alerts).all()
    except DBAPIError as error:
        return f"the database can't be asked: {error.orig}"
    if open_alerts:
        return "open: " + ", ".join(f"{row.rule} ({row.subject})" for row in open_alerts)
    return None


def _in_words(notice: Notice) -> str:
    if notice.at is None:
        return "Nobody noticed"
    told = ", ".join(sorted(notice.told)) or "nobody yet"
    return f"Noticed by {notice.by} after {(notice.at - notice.since).total_seconds():.0f} s; told: {told}"
