"""The dry runs of the two jobs that move money: what would be sent or refused, and which statuses recorded.

Nothing is sent: a batch is only claimed and checked. The bank receives only the lookups of auto-heal.
See docs/decisions/shadow-mode.md.
"""

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.shadow_mode import decision_reader
from seedtrust_ops.domain.shadow_mode.decisions import Decision
from seedtrust_ops.domain.shadow_mode.legacy_undo import undo_batch
from seedtrust_ops.domain.shadow_mode.rollback_session import DryRun, written_in_this_transaction
from seedtrust_ops.domain.transfers.account_numbers import find_account_number_problems
from seedtrust_ops.domain.transfers.auto_heal import find_reason_to_heal, heal, reclaim_expired_batches
from seedtrust_ops.domain.transfers.bank_feed import FEED_NAME
from seedtrust_ops.domain.transfers.batch_lifecycle import UNFINISHED_STATUSES, claim_batch
from seedtrust_ops.domain.transfers.leases import Lease
from seedtrust_ops.domain.transfers.preflight import check_batch
from seedtrust_ops.domain.transfers.sending_context import BatchRun
from seedtrust_ops.ports.bank import OpenBank
from seedtrust_ops.tables import BankFeedCursor, HuntingtonTransaction, ShadowDecision

SEND, REFUSE, ASK_FIRST, CLAIM = "send", "refuse", "ask the bank first", "claim"
RETURN_TO_PENDING = "return to pending"
FEED_READ = "read"
BANK_FEED = "bank feed"
"""The subject that stores how far shadow mode has read the bank's feed; the live cursor does not move."""


def transaction_subject(transaction_id: int) -> str:
    """Return the subject under which decisions name a transaction."""
    return f"transaction {transaction_id}"


def dry_run_batch(sessions: Sessions, run: BatchRun) -> list[Decision]:
    """Return which transactions of a batch would be sent or refused if the legacy worker had not started it.

    Raises:
        UnknownBatch, BatchNotQueued, WrongFieldKey: as `process_batch` does.
    """

    batch_id = run.batch_id

    def claim_and_check(session: Session) -> list[Decision]:
        claim = claim_batch(session, run)
        claimed = Decision(f"batch {batch_id}", CLAIM)
        if not isinstance(claim, Lease):
            return [claimed]
        waiting = select(HuntingtonTransaction.id).where(
            HuntingtonTransaction.batch_id == batch_id, HuntingtonTransaction.status.in_(UNFINISHED_STATUSES)
        )
        open_ids = set(session.scalars(waiting))
        problems = find_account_number_problems(session, run)
        sendable = set(check_batch(session, claim, problems))
        return [claimed, *_transaction_decisions(session, open_ids, sendable, batch_id)]

    dry_run = DryRun(sessions, lambda session: undo_batch(session, batch_id))
    return dry_run.run(lambda dry_sessions: run_in_transaction(dry_sessions, claim_and_check))


def _transaction_decisions(
    session: Session, open_ids: set[int], sendable: set[int], batch_id: int
) -> Iterator[Decision]:
    query = select(
        HuntingtonTransaction.id,
        HuntingtonTransaction.method,
        HuntingtonTransaction.amount_cents,
        HuntingtonTransaction.status,
        HuntingtonTransaction.failure_reason,
    ).where(HuntingtonTransaction.batch_id == batch_id)
    for one in session.execute(query.order_by(HuntingtonTransaction.id)):
        if one.id not in open_ids:
            continue
        detail: dict[str, object] = {"method": one.method, "amount_cents": one.amount_cents}
        if one.id in sendable:
            yield Decision(transaction_subject(one.id), SEND, detail)
        elif one.status == "processing":
            yield Decision(transaction_subject(one.id), ASK_FIRST, detail)
        else:
            yield Decision(transaction_subject(one.id), REFUSE, detail | {"reason": one.failure_reason})


def dry_run_auto_heal(
    sessions: Sessions, job: str, *, open_bank: OpenBank, unknown_grace_seconds: float
) -> list[Decision]:
    """Return what auto-heal would record now. The bank is queried outside any transaction, as in a live run.

    Raises:
        BankUnauthorized, BankInquiryFailed, RowsInUse: nothing was recorded.
    """
    dry_run = create_auto_heal_dry_run(sessions, job, unknown_grace_seconds)
    report = dry_run.run(
        lambda dry_sessions: heal(
            dry_sessions,
            open_bank,
            unknown_grace_seconds=unknown_grace_seconds,
            was_canceled_by_person=_nobody_cancels,
        )
    )
    found = {(one.subject, one.decision): one for one in dry_run.decisions}
    changes = [
        Decision(
            transaction_subject(change.transaction_id),
            change.after,
            {
                "was": change.before,
                "amount_cents": change.transfer.amount_cents,
                "bank_transfer_id": change.transfer.id,
            },
        )
        for change in report.changes
    ]
    requeued_transactions = [
        Decision(transaction_subject(one), RETURN_TO_PENDING) for one in report.inquiry.requeued_transactions
    ]
    queued = [
        Decision(f"batch {one}", "requeue") for one in sorted({*report.abandoned, *report.inquiry.requeued_batches})
    ]
    finished = [Decision(f"batch {one}", f"finish as {status}") for one, status in report.finished.items()]
    return [*found.values(), *changes, *requeued_transactions, *queued, *finished]


def _nobody_cancels(_run_id: str) -> bool:
    """In shadow mode the legacy system sends, so no run that a person could cancel in Dagster holds a batch."""
    return False


def find_shadow_reason_to_heal(sessions: Sessions, job: str, unknown_grace_seconds: float) -> str | None:
    """Return why auto-heal is due in shadow mode, or None if nothing is open and the feed was read recently."""

    def read(dry_sessions: Sessions) -> str | None:
        with dry_sessions() as session:
            return find_reason_to_heal(session)

    return create_auto_heal_dry_run(sessions, job, unknown_grace_seconds).run(read)


def create_auto_heal_dry_run(sessions: Sessions, job: str, unknown_grace_seconds: float) -> DryRun:
    """Return the dry run of auto-heal; each transaction starts from the state the previous one would have left."""

    def prepare(session: Session) -> None:
        read = session.execute(
            select(ShadowDecision.detail, ShadowDecision.last_seen_at).where(
                ShadowDecision.job == job, ShadowDecision.subject == BANK_FEED, ShadowDecision.decision == FEED_READ
            )
        ).one_or_none()
        if read is not None:
            session.execute(
                insert(BankFeedCursor)
                .values(
                    name=FEED_NAME,
                    read_up_to=datetime.fromisoformat(read.detail["read_up_to"]),
                    last_read_at=read.last_seen_at,
                )
                .on_conflict_do_nothing()
            )
        reclaim_expired_batches(session, unknown_grace_seconds, _nobody_cancels)

    return DryRun(sessions, prepare, _read_cursor_and_alerts)


def _read_cursor_and_alerts(session: Session) -> Iterator[Decision]:
    cursor = session.execute(
        select(BankFeedCursor.read_up_to, BankFeedCursor.last_read_at).where(
            BankFeedCursor.name == FEED_NAME,
            written_in_this_transaction(BankFeedCursor),
            # What `prepare` inserted was read before this transaction began.
            BankFeedCursor.last_read_at >= func.now(),
        )
    ).one_or_none()
    if cursor is not None:
        yield Decision(BANK_FEED, FEED_READ, {"read_up_to": cursor.read_up_to.isoformat()})
    yield from decision_reader.read_unknown_transfers(session)
    yield from decision_reader.read_alerts(session)
