"""The life of a batch: queued by a person, claimed by a worker, returned to the queue or finished.

The lease that the claim acquires is in `leases`; the statuses of single transactions are in `status_transitions`.
See docs/decisions/batch-runs.md.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Select, and_, case, exists, func, or_, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.domain.sql_ranges import representable, unless_far_ahead
from seedtrust_ops.domain.transfers.leases import (
    Lease,
    LeaseHolder,
    WasCanceledByPerson,
    acquire_lease,
    has_live_lease,
    is_live,
    lock_lease,
)
from seedtrust_ops.domain.transfers.legacy_takeover import (
    is_held_by_legacy_worker,
    require_bank_inquiry,
    take_over_legacy_batches,
    was_started_by_legacy_worker,
)
from seedtrust_ops.domain.transfers.sending_context import BatchRun
from seedtrust_ops.errors import InputError, SeedTrustError
from seedtrust_ops.tables import BatchLease, FundingCheck, HuntingtonBatch, HuntingtonTransaction

FINISHED_STATUSES = ("completed", "completed_with_errors", "failed")
UNFINISHED_STATUSES = ("pending", "processing")
"""A batch with a transaction in one of these is not finished."""
QUEUEABLE_STATUSES = ("draft", "held", "failed")
"""`failed` covers batches that the legacy worker abandoned with transactions still pending."""
MAX_ID = 2**63 - 1
"""The maximum of PostgreSQL's bigint; a query with a larger number, which a person may type, is an error."""


class UnknownBatch(InputError):
    """No batch has this id."""


class BatchNotQueueable(SeedTrustError):
    """The batch cannot be queued in its current state; `status` is its current status."""

    def __init__(self, message: str, batch_id: int, status: str) -> None:
        super().__init__(message)
        self.batch_id = batch_id
        self.status = status


class BatchNotQueued(InputError):
    """The batch is in a status that cannot be sent."""


class BatchNotHeld(SeedTrustError):
    """Only a held batch can be released."""


class AllTransfersFailed(SeedTrustError):
    """The batch was processed, and all of its transfers failed."""


@dataclass(frozen=True)
class BatchInQueue:
    """A batch in the queue: when it was queued (UTC), and its pending transactions and cents."""

    batch_id: int
    queued_at: datetime
    transactions: int
    amount_cents: int


def queue_batch(session: Session, batch_id: int) -> BatchInQueue:
    """Queue a draft, held or abandoned batch; a worker claims it as soon as the caller commits.

    A batch that is already queued stays as it is. `started_at` is kept: from it, `claim_batch` recognizes a batch that
    the legacy worker started, and asks the bank about its pending transactions before it sends any.

    Only the platform's tables are used, so that the platform's applications can call this under their own database
    role (docs/decisions/ops-client.md).

    Args:
        session: a session in the caller's transaction; the batch's row is locked until that ends.
        batch_id: the batch to queue.

    Raises:
        UnknownBatch: if there is no such batch.
        BatchNotQueueable: if it is processing or finished, or has no pending transaction.
    """
    batch = None
    if 0 < batch_id <= MAX_ID:
        query = select(HuntingtonBatch.status, representable(HuntingtonBatch.queued_at).label("queued_at")).where(
            HuntingtonBatch.id == batch_id
        )
        batch = session.execute(query.with_for_update()).one_or_none()
    if batch is None:
        raise UnknownBatch(f"There is no batch {batch_id}. Nothing was queued.")
    pending, amount_cents = session.execute(
        select(func.count(), func.coalesce(func.sum(HuntingtonTransaction.amount_cents), 0)).where(
            HuntingtonTransaction.batch_id == batch_id, HuntingtonTransaction.status == "pending"
        )
    ).one()
    queued_at = batch.queued_at
    if batch.status != "queued" or queued_at is None:
        _require_queueable(batch_id, batch.status, pending)
        queued_at = session.scalars(
            update(HuntingtonBatch)
            .where(HuntingtonBatch.id == batch_id)
            .values(status="queued", queued_at=func.now(), finished_at=None, error=None)
            .returning(HuntingtonBatch.queued_at)
        ).one()
    return BatchInQueue(batch_id, queued_at, pending, int(amount_cents))


def _require_queueable(batch_id: int, status: str, pending: int) -> None:
    if status == "processing":
        why = "is already being sent. No action is needed: if its worker stops, auto-heal requeues the batch."
    elif status not in (*QUEUEABLE_STATUSES, "queued"):
        why = f"is '{status}': its transfers are at the bank. Put further payments into a new batch."
    elif pending == 0:
        why = (
            "has no pending transaction, so there is nothing to send. Add the payments that are still to be made, or "
            "put them into a new batch if the bank has refused them."
        )
    else:
        return
    raise BatchNotQueueable(f"Batch {batch_id} was not queued: it {why}", batch_id, status)


def release_batch(session: Session, batch_id: int) -> BatchInQueue:
    """Queue a held batch again: what a person has canceled is sent after all. Raises as `queue_batch` does.

    Raises:
        BatchNotHeld: if it has another status.
    """
    status = None
    if 0 < batch_id <= MAX_ID:
        query = select(HuntingtonBatch.status).where(HuntingtonBatch.id == batch_id)
        status = session.scalar(query.with_for_update())
    if status not in (None, "held"):
        raise BatchNotHeld(f"Batch {batch_id} is '{status}', and only a held batch is released. Nothing was changed.")
    return queue_batch(session, batch_id)


@dataclass(frozen=True)
class QueuedBatch:
    """A batch in the queue; `generation` counts its previous claims, and `last_holder` made the latest one.

    `waits_until` is set if the funding account did not cover it, and is when it is to be checked again.
    """

    batch_id: int
    priority: int
    queued_at: datetime | None
    generation: int
    last_holder: str | None
    lease_ended_at: datetime | None
    waits_until: datetime | None = None


def list_queued_batches(session: Session) -> list[QueuedBatch]:
    """Return the batches in the queue: highest priority first, then oldest first."""
    # A batch that a person has queued since it was checked does not wait.
    waits = and_(
        FundingCheck.not_before > func.clock_timestamp(),
        FundingCheck.checked_at
        >= func.coalesce(unless_far_ahead(HuntingtonBatch.queued_at), HuntingtonBatch.created_at),
    )
    rows = session.execute(
        select(
            HuntingtonBatch.id,
            HuntingtonBatch.priority,
            unless_far_ahead(HuntingtonBatch.queued_at),
            func.coalesce(BatchLease.generation, 0),
            BatchLease.holder,
            BatchLease.expires_at,
            case((waits, FundingCheck.not_before)),
        )
        .outerjoin(BatchLease, BatchLease.batch_id == HuntingtonBatch.id)
        .outerjoin(FundingCheck, FundingCheck.batch_id == HuntingtonBatch.id)
        .where(HuntingtonBatch.status == "queued")
        .order_by(HuntingtonBatch.priority.desc(), HuntingtonBatch.queued_at, HuntingtonBatch.id)
    )
    return [QueuedBatch(*row) for row in rows]


@dataclass(frozen=True)
class AlreadyFinished:
    """The batch needs no work: it was finished before this worker claimed it."""

    status: str
    finished_at: datetime | None


def claim_batch(session: Session, run: BatchRun) -> Lease | LeaseHolder | AlreadyFinished:
    """Claim a queued batch, or one whose worker crashed, for the run.

    A batch that the legacy worker (which has no leases) left in `processing` is taken over if it has been unchanged for
    the grace period of unknown keys.

    Args:
        session: a session with its own transaction.
        run: the run that claims its batch.

    Returns:
        The lease, the current holder, or that the batch is already finished. If another worker finished it since the
        run was requested, that is not an error: two runs were requested and the other one was first.

    Raises:
        UnknownBatch: if there is no such batch.
        BatchNotQueued: if it has another status; the message names it.
    """
    batch_id, quiet_seconds = run.batch_id, run.options.unknown_grace_seconds
    batch = None
    if batch_id <= MAX_ID:
        batch = session.scalar(select(HuntingtonBatch).where(HuntingtonBatch.id == batch_id).with_for_update())
    if batch is None:
        raise UnknownBatch(f"There is no batch {batch_id}. Nothing was sent. Check the batch id in the run's config.")
    if batch.status == "completed" or (
        batch.status in FINISHED_STATUSES and batch.finished_at is not None and batch.finished_at >= run.requested_at
    ):
        return AlreadyFinished(batch.status, batch.finished_at)
    if batch.status not in ("queued", "processing"):
        raise BatchNotQueued(
            f"Batch {batch_id} is '{batch.status}', and only a queued batch can be sent. Nothing was sent. "
            "Queue the batch if it should be sent."
        )
    if batch.status == "queued" and was_started_by_legacy_worker(session, batch):
        require_bank_inquiry(session, [batch_id])
    held_by_legacy = select(HuntingtonBatch.id).where(HuntingtonBatch.id == batch_id, is_held_by_legacy_worker())
    if session.scalar(held_by_legacy) and not take_over_legacy_batches(session, quiet_seconds, batch_id):
        raise BatchNotQueued(
            f"Batch {batch_id} is 'processing' by a worker that holds no lease (the legacy worker), and changed within "
            f"the last {quiet_seconds:g} seconds. Nothing was sent. Try again after it has been unchanged for that "
            "long."
        )
    _require_not_canceled(session, run)
    lease = acquire_lease(session, batch_id, run.holder, run.options.lease_seconds)
    if isinstance(lease, Lease):
        batch.status = "processing"
        batch.started_at = batch.started_at or func.now()
        batch.finished_at = None
        batch.error = None
    return lease


def _require_not_canceled(session: Session, run: BatchRun) -> None:
    """Leave a batch to auto-heal, which holds it, if a person canceled the run from which it would be taken over."""
    abandoned_by = session.scalar(
        select(BatchLease.holder).where(
            BatchLease.batch_id == run.batch_id,
            BatchLease.token.is_not(None),
            BatchLease.expires_at <= func.clock_timestamp(),
            BatchLease.holder != run.holder,
        )
    )
    if abandoned_by is not None and run.was_canceled_by_person(abandoned_by):
        raise BatchNotQueued(
            f"A person canceled run {abandoned_by}, which was sending batch {run.batch_id}. Nothing was sent. The "
            "batch will be held within a minute; then `seedtrust-ops transfers release` queues it again."
        )


def lock_batches(session: Session, batch_ids: Collection[int] | Select[int]) -> None:
    """Lock the batches in the order of their ids: the first locks of every transaction that changes batches.

    Either a claim waits until this transaction ends, or this transaction sees the claim's lease.
    """
    session.execute(
        select(HuntingtonBatch.id)
        .where(HuntingtonBatch.id.in_(batch_ids))
        .order_by(HuntingtonBatch.id)
        .with_for_update()
    )


def requeue_abandoned_batches(
    session: Session, batch_ids: Collection[int], was_canceled_by_person: WasCanceledByPerson
) -> list[int]:
    """Requeue the batches whose worker crashed before it had sent everything: they still have pending transactions.

    Those whose run a person canceled are held instead, pending transactions or not.

    Args:
        session: a session with its own transaction.
        batch_ids: the batches whose leases were revoked in this transaction.
        was_canceled_by_person: asked about the run that held each lease.

    Returns:
        The batches that were requeued.
    """
    abandoned = (
        select(HuntingtonBatch.id)
        .join(BatchLease, BatchLease.batch_id == HuntingtonBatch.id)
        .where(
            in_array(HuntingtonBatch.id, batch_ids),
            HuntingtonBatch.status == "processing",
            ~is_live(),
        )
        .order_by(HuntingtonBatch.id)
        .with_for_update(of=HuntingtonBatch)
    )
    locked = session.scalars(abandoned).all()
    # Checked again now that the rows are locked: a worker may have claimed one in between.
    live = set(session.scalars(select(BatchLease.batch_id).where(in_array(BatchLease.batch_id, locked), is_live())))
    canceled = _hold_canceled(session, [one for one in locked if one not in live], was_canceled_by_person)
    return sorted(
        session.scalars(
            update(HuntingtonBatch)
            .where(
                in_array(HuntingtonBatch.id, [one for one in locked if one not in live | canceled]),
                _has_transaction_in(("pending",)),
            )
            .values(status="queued")
            .returning(HuntingtonBatch.id)
        )
    )


def requeue_batches(
    session: Session, batch_ids: Collection[int], was_canceled_by_person: WasCanceledByPerson
) -> list[int]:
    """Requeue the batches in which auto-heal set transactions back to `pending`; held and draft batches stay.

    A batch whose last run a person canceled is held instead. `queued_at` is the start of the wait, so it changes only
    if the batch had been finished. The caller holds the row locks and has made sure that no worker has a lease on the
    batches.
    """
    canceled = _hold_canceled(session, batch_ids, was_canceled_by_person)
    batch_ids = [one for one in batch_ids if one not in canceled]
    finished = HuntingtonBatch.status.in_(FINISHED_STATUSES)
    return sorted(
        session.scalars(
            update(HuntingtonBatch)
            .where(in_array(HuntingtonBatch.id, batch_ids), or_(finished, HuntingtonBatch.status == "processing"))
            .values(
                status="queued",
                queued_at=case((finished, func.now()), else_=HuntingtonBatch.queued_at),
                finished_at=None,
                error=None,
            )
            .returning(HuntingtonBatch.id)
        )
    )


def _hold_canceled(
    session: Session, batch_ids: Collection[int], was_canceled_by_person: WasCanceledByPerson
) -> set[int]:
    """Hold those of the batches whose last holder a person canceled; return them."""
    holders = session.execute(
        select(BatchLease.batch_id, BatchLease.holder)
        .where(in_array(BatchLease.batch_id, batch_ids), BatchLease.generation > 0)
        .order_by(BatchLease.batch_id)
    )
    canceled = {row.batch_id for row in holders.all() if was_canceled_by_person(row.holder)}
    for batch_id in canceled:
        hold_batch(session, batch_id, statuses=("processing", *FINISHED_STATUSES))
    return canceled


def hold_batch(session: Session, batch_id: int, *, statuses: Collection[str]) -> None:
    """Hold a batch, because a person canceled a run that was sending it or was going to.

    Args:
        session: a session with its own transaction, in which no worker has a lease on the batch but the caller.
        batch_id: the batch.
        statuses: those from which it is held; in any other, it stays as it is.
    """
    session.execute(
        update(HuntingtonBatch)
        .where(HuntingtonBatch.id == batch_id, HuntingtonBatch.status.in_(statuses))
        .values(
            status="held",
            finished_at=None,
            error="A person canceled the run, so what was not sent is held. `seedtrust-ops transfers release "
            f"{batch_id}` queues it again.",
        )
    )


def hold_reopened_batches(session: Session) -> None:
    """Hold the finished batches that have a pending transaction again, because nobody has queued it.

    A person has set a transaction back or moved one into the batch, or the legacy worker has abandoned it. A held batch
    opens `batch_held`, and is sent once somebody releases it.
    """
    reopened = (
        HuntingtonBatch.status.in_(FINISHED_STATUSES),
        _has_transaction_in(("pending",)),
        ~has_live_lease(HuntingtonBatch.id),
    )
    lock_batches(session, select(HuntingtonBatch.id).where(*reopened))
    session.execute(
        update(HuntingtonBatch)
        .where(*reopened)
        .values(
            status="held",
            finished_at=None,
            error=func.concat(
                "The batch had finished and has pending transactions again, so it is held. `seedtrust-ops transfers "
                "release ",
                HuntingtonBatch.id,
                "` sends them.",
            ),
        )
    )


def return_to_queue(session: Session, lease: Lease, error: str | None) -> None:
    """Return a batch that was not completely sent to the queue, and store the reason in its `error`.

    `queued_at` stays: it is the start of the wait. A batch with no pending transaction left stays `processing` until
    the status of its open transactions is known.
    """
    lock_batches(session, [lease.batch_id])
    lock_lease(session, lease)
    session.execute(
        update(HuntingtonBatch)
        .where(
            HuntingtonBatch.id == lease.batch_id,
            HuntingtonBatch.status == "processing",
            _has_transaction_in(("pending",)),
        )
        .values(status="queued", error=error)
    )


def list_batches_ready_to_finish(session: Session) -> list[int]:
    """Lock and return the batches, also held ones, without a worker whose transactions are all settled or submitted.

    Those that another application holds locked are left out.
    """
    return list(
        session.scalars(
            select(HuntingtonBatch.id)
            .where(
                or_(HuntingtonBatch.status == "processing", _is_held_with_transactions()),
                ~has_live_lease(HuntingtonBatch.id),
                ~_has_transaction_in(UNFINISHED_STATUSES),
            )
            .order_by(HuntingtonBatch.id)
            .with_for_update(skip_locked=True)
        )
    )


def finish_batches(session: Session, batch_ids: Collection[int]) -> dict[int, str]:
    """Set the final status of every batch whose transactions are all settled or submitted.

    A batch that was already finished is evaluated again, because the bank may have changed a status (an ACH return);
    its `finished_at` stays. A batch without transactions is `failed`, unless it is held: a person may be filling it.

    Returns:
        The batches whose status or error changed, with their status.
    """
    succeeded = func.count().filter(HuntingtonTransaction.status.in_(("submitted", "completed")))
    failed = func.count().filter(HuntingtonTransaction.status.in_(("failed", "returned")))
    unfinished = func.count().filter(HuntingtonTransaction.status.in_(UNFINISHED_STATUSES))
    totals = (
        select(
            HuntingtonBatch.id.label("batch_id"),
            succeeded.label("succeeded"),
            failed.label("failed"),
            unfinished.label("unfinished"),
        )
        .outerjoin(HuntingtonTransaction, HuntingtonTransaction.batch_id == HuntingtonBatch.id)
        .where(in_array(HuntingtonBatch.id, batch_ids))
        .group_by(HuntingtonBatch.id)
        .subquery()
    )
    status = case(
        (totals.c.succeeded == 0, "failed"),
        (totals.c.failed > 0, "completed_with_errors"),
        else_="completed",
    )
    error = case(
        (totals.c.succeeded + totals.c.failed == 0, "The batch has no transactions."),
        (totals.c.failed > 0, func.concat(totals.c.failed, " of its transfers did not go through.")),
        else_=None,
    )
    rows = session.execute(
        update(HuntingtonBatch)
        .where(
            HuntingtonBatch.id == totals.c.batch_id,
            totals.c.unfinished == 0,
            or_(
                HuntingtonBatch.status.in_(FINISHED_STATUSES),
                and_(
                    or_(HuntingtonBatch.status == "processing", _is_held_with_transactions()),
                    ~has_live_lease(HuntingtonBatch.id),
                ),
            ),
            or_(HuntingtonBatch.status != status, HuntingtonBatch.error.is_distinct_from(error)),
        )
        .values(status=status, error=error, finished_at=func.coalesce(HuntingtonBatch.finished_at, func.now()))
        .returning(HuntingtonBatch.id, HuntingtonBatch.status)
    )
    return {row.id: row.status for row in rows}


def _is_held_with_transactions() -> ColumnElement[bool]:
    has_transactions = exists(HuntingtonTransaction.id).where(HuntingtonTransaction.batch_id == HuntingtonBatch.id)
    return and_(HuntingtonBatch.status == "held", has_transactions)


def _has_transaction_in(statuses: Collection[str]) -> ColumnElement[bool]:
    return exists(HuntingtonTransaction.id).where(
        HuntingtonTransaction.batch_id == HuntingtonBatch.id, HuntingtonTransaction.status.in_(statuses)
    )
