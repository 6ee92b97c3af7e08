"""The looks in shadow of the two jobs that move money: what would be sent or refused, and what would be recorded.

Nothing is sent: a batch is claimed and checked, and that is all. The bank is asked only what healing asks.
"""

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.shadow_mode import decision_reader
from seedtrust_ops.domain.shadow_mode.decisions import FIRST_LOOK, Decision, looks_of
from seedtrust_ops.domain.shadow_mode.legacy_undo import undo_batch
from seedtrust_ops.domain.shadow_mode.rollback_session import Rehearsal, written_here
from seedtrust_ops.domain.transfers.account_numbers import FieldCipher, account_number_problems
from seedtrust_ops.domain.transfers.auto_heal import heal, reclaim_expired_batches, what_needs_healing
from seedtrust_ops.domain.transfers.bank_feed import FEED
from seedtrust_ops.domain.transfers.batch_claim import claim_batch
from seedtrust_ops.domain.transfers.batch_lifecycle import QueuedBatch
from seedtrust_ops.domain.transfers.batch_processor import OpenBank, TransferRules
from seedtrust_ops.domain.transfers.leases import Lease
from seedtrust_ops.domain.transfers.preflight import check_batch
from seedtrust_ops.tables import BankFeedCursor, HuntingtonBatch, HuntingtonTransaction, ShadowDecision

SEND, REFUSE, ASK_FIRST, CLAIM = "send", "refuse", "ask the bank first", "claim"
PENDING_AGAIN = "pending again"
FEED_READ = "read"
THE_FEED = "the bank's feed"
"""The decision that keeps how far shadow has read the bank's feed: the live cursor stays where it is."""


def subject_of(transaction_id: int) -> str:
    """Return what decisions call a transaction."""
    return f"transaction {transaction_id}"


def unseen_batches(session: Session, job: str) -> list[QueuedBatch]:
    """Return the batches that were queued since shadow looked at them, wherever the legacy worker has got to."""
    looks = looks_of(session, job)
    since = (looks.first if looks is not None else func.now()) - FIRST_LOOK
    queued_at = func.coalesce(HuntingtonBatch.queued_at, HuntingtonBatch.created_at)
    seen = select(ShadowDecision.id).where(
        ShadowDecision.job == job,
        ShadowDecision.subject == func.concat("batch ", HuntingtonBatch.id),
        ShadowDecision.last_seen_at > queued_at,
    )
    rows = session.execute(
        select(HuntingtonBatch.id, HuntingtonBatch.priority, queued_at)
        .where(HuntingtonBatch.status.not_in(("draft", "held")), queued_at >= since, ~seen.exists())
        .order_by(HuntingtonBatch.priority.desc(), queued_at, HuntingtonBatch.id)
    )
    return [QueuedBatch(row.id, row.priority, row[2], 0, None, None) for row in rows]


def batch(
    sessions: Sessions,
    _job: str,
    *,
    cipher: FieldCipher,
    rules: TransferRules,
    batch_id: int,
    holder: str,
    asked_at: datetime,
) -> list[Decision]:
    """Return which transactions of a batch would be sent, and which refused and why, had the legacy not begun it.

    Raises:
        UnknownBatch, BatchNotQueued, WrongFieldKey: as `process_batch` does.
    """

    def claim_and_check(session: Session) -> list[Decision]:
        claim = claim_batch(
            session,
            batch_id,
            holder,
            lease_seconds=rules.lease_seconds,
            asked_at=asked_at,
            quiet_seconds=rules.unknown_grace_seconds,
        )
        looked = Decision(f"batch {batch_id}", CLAIM)
        if not isinstance(claim, Lease):
            return [looked]
        waiting = select(HuntingtonTransaction.id).where(
            HuntingtonTransaction.batch_id == batch_id, HuntingtonTransaction.status.in_(("pending", "processing"))
        )
        open_ids = set(session.scalars(waiting))
        problems = account_number_problems(session, batch_id, cipher, rules.funding_account_id)
        sendable = set(check_batch(session, claim, problems))
        return [looked, *_of_transactions(session, open_ids, sendable, batch_id)]

    rehearsal = Rehearsal(sessions, lambda session: undo_batch(session, batch_id))
    return rehearsal.run(lambda stage: run_in_transaction(stage, claim_and_check))


def _of_transactions(session: Session, open_ids: set[int], sendable: set[int], batch_id: int) -> Iterator[Decision]:
    session.expire_all()
    query = select(HuntingtonTransaction).where(HuntingtonTransaction.batch_id == batch_id)
    for one in session.scalars(query.order_by(HuntingtonTransaction.id)):
        if one.id not in open_ids:
            continue
        detail: dict[str, object] = {"method": one.method, "amount_cents": one.amount_cents}
        if one.id in sendable:
            yield Decision(subject_of(one.id), SEND, detail)
        elif one.status == "processing":
            yield Decision(subject_of(one.id), ASK_FIRST, detail)
        else:
            yield Decision(subject_of(one.id), REFUSE, detail | {"reason": one.failure_reason})


def healing(sessions: Sessions, job: str, *, open_bank: OpenBank, unknown_grace_seconds: float) -> list[Decision]:
    """Return what a healing would record now; the bank is asked, outside of any transaction, as when it is live.

    Raises:
        BankUnauthorized, BankInquiryFailed, RowsInUse: nothing is recorded then.
    """
    stage = healing_stage(sessions, job, unknown_grace_seconds)
    report = stage.run(lambda live: heal(live, open_bank, unknown_grace_seconds=unknown_grace_seconds))
    found = {(one.subject, one.decision): one for one in stage.decisions}
    changes = [
        Decision(
            subject_of(change.transaction_id),
            change.after,
            {
                "was": change.before,
                "amount_cents": change.transfer.amount_cents,
                "bank_transfer_id": change.transfer.id,
            },
        )
        for change in report.feed.changes + report.findings.changes
    ]
    put_back = [Decision(subject_of(one), PENDING_AGAIN) for one in report.findings.put_back]
    queued = [Decision(f"batch {one}", "queue again") for one in sorted({*report.abandoned, *report.findings.requeued})]
    finished = [Decision(f"batch {one}", f"finish as {status}") for one, status in report.finished.items()]
    return [*found.values(), *changes, *put_back, *queued, *finished]


def why_heal(sessions: Sessions, job: str, unknown_grace_seconds: float) -> str | None:
    """Return why a healing is due in shadow, None where nothing is open and shadow read the feed lately."""

    def ask(stage: Sessions) -> str | None:
        with stage() as session:
            return what_needs_healing(session)

    return healing_stage(sessions, job, unknown_grace_seconds).run(ask)


def healing_stage(sessions: Sessions, job: str, unknown_grace_seconds: float) -> Rehearsal:
    """Return the rehearsal of a healing: each of its transactions begins where the last one would have ended."""

    def prepare(session: Session) -> None:
        read = session.execute(
            select(ShadowDecision.detail, ShadowDecision.last_seen_at).where(
                ShadowDecision.job == job, ShadowDecision.subject == THE_FEED, ShadowDecision.decision == FEED_READ
            )
        ).one_or_none()
        if read is not None:
            session.execute(
                insert(BankFeedCursor)
                .values(
                    name=FEED,
                    read_up_to=datetime.fromisoformat(read.detail["read_up_to"]),
                    last_read_at=read.last_seen_at,
                )
                .on_conflict_do_nothing()
            )
        reclaim_expired_batches(session, unknown_grace_seconds)

    return Rehearsal(sessions, prepare, _cursor_and_alerts)


def _cursor_and_alerts(session: Session) -> Iterator[Decision]:
    cursor = session.execute(
        select(BankFeedCursor.read_up_to, BankFeedCursor.last_read_at).where(
            BankFeedCursor.name == FEED,
            written_here(BankFeedCursor),
            # What `prepare` put there was read before this transaction began.
            BankFeedCursor.last_read_at >= func.now(),
        )
    ).one_or_none()
    if cursor is not None:
        yield Decision(THE_FEED, FEED_READ, {"read_up_to": cursor.read_up_to.isoformat()})
    yield from decision_reader.alerts(session)
