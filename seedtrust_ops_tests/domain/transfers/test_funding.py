"""Batches that the funding account does not cover: nothing is sent, they wait, and no two count the same cents."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, text, update

from seedtrust_ops.domain.health.batches import batch_stuck
from seedtrust_ops.domain.health.funding import insufficient_funding
from seedtrust_ops.domain.transfers import funding
from seedtrust_ops.domain.transfers.batch_lifecycle import (
    AllTransfersFailed,
    hold_batch,
    list_queued_batches,
    release_batch,
)
from seedtrust_ops.domain.transfers.batch_processor import BatchReport, RunCanceled
from seedtrust_ops.domain.transfers.funding import FundingOutcome
from seedtrust_ops.domain.transfers.kill_switch import TransfersHalted, halt
from seedtrust_ops.domain.transfers.preflight import MAX_AMOUNT_CENTS
from seedtrust_ops.ports.bank import BankUnauthorized
from seedtrust_ops.tables import BatchLease, FundingCheck, HuntingtonBatch
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker
from seedtrust_ops_tests.support.factories import Company

ACCOUNT_PATH = "/v1/accounts/acct_escrow"


@pytest.fixture
def no_recheck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(funding, "MAX_RECHECK_SECONDS", -1.0)


def fund(worker: Worker, cents: int) -> None:
    worker.bank.control.set_available_cents(cents)


def available(worker: Worker) -> int:
    return worker.bank.control.totals()["accounts"][0]["available_cents"]


def posts(worker: Worker, company: Company, *batches: int) -> int:
    return sum(worker.posts(one.id) for batch_id in batches for one in company.transactions(batch_id))


def check_of(company: Company, batch_id: int) -> FundingCheck:
    with company.sessions() as session:
        return session.scalars(select(FundingCheck).where(FundingCheck.batch_id == batch_id)).one()


def waits_until(company: Company, batch_id: int) -> datetime | None:
    with company.sessions() as session:
        return next(one.waits_until for one in list_queued_batches(session) if one.batch_id == batch_id)


def alert_details(company: Company) -> list[str]:
    with company.sessions() as session:
        return [finding.detail for finding in insufficient_funding(session)]


def account_reads(worker: Worker) -> int:
    return sum(request["path"] == ACCOUNT_PATH for request in worker.bank.control.requests())


def process_in_parallel(worker: Worker, batches: Sequence[int]) -> list[BatchReport]:
    workers = [replace(worker, name=f"run-of-{batch_id}") for batch_id in batches]
    with ThreadPoolExecutor(len(batches)) as pool:
        return list(pool.map(lambda one, batch_id: one.process(batch_id), workers, batches))


def test_forty_wires_with_funds_for_three_are_not_sent(worker: Worker, company: Company) -> None:
    batch_id = company.big_batch(40, 1_000)
    fund(worker, 3_000)

    report = worker.process(batch_id)

    assert report.awaits is not None
    assert (report.status, report.counts, report.awaits.missing_cents) == ("queued", {"pending": 40}, 37_000)
    assert posts(worker, company, batch_id) == 0
    batch = company.batch_row(batch_id)
    assert batch.error == (
        f"Batch {batch_id} waits for funds. It needs $400.00. Funding account acct_escrow has $30.00 available, so "
        "$370.00 is missing."
    )
    assert company.open_alerts() == []


@pytest.mark.parametrize(("cents", "is_sent"), [(3_000, True), (2_999, False)], ids=["exact", "one cent short"])
def test_funds_cover_a_batch_to_the_cent(worker: Worker, company: Company, cents: int, is_sent: bool) -> None:
    batch_id = company.big_batch(3, 1_000)
    fund(worker, cents)
    before = account_reads(worker)

    report = worker.process(batch_id)

    assert report.counts == ({"completed": 3} if is_sent else {"pending": 3})
    assert available(worker) == (0 if is_sent else 2_999)
    assert account_reads(worker) - before == 1


def test_transactions_that_fail_preflight_need_no_funds(worker: Worker, company: Company) -> None:
    batch_id = company.batch([1_000])
    company.transaction(batch_id, None, 9_000)
    fund(worker, 1_000)
    assert worker.process(batch_id).counts == {"completed": 1, "failed": 1}


def test_waiting_batch_is_sent_once_it_is_funded(worker: Worker, company: Company) -> None:
    batch_id = company.batch([1_000])
    fund(worker, 999)
    worker.process(batch_id)
    queued_at = company.batch_row(batch_id).queued_at
    assert waits_until(company, batch_id) is not None
    fund(worker, 1_000)

    # A person need not wait until it is due.
    report = worker.process(batch_id)

    assert (report.status, report.awaits) == ("completed", None)
    assert company.batch_row(batch_id).queued_at == queued_at
    assert company.batch_row(batch_id).error is None
    assert alert_details(company) == []


def test_waiting_batch_is_due_again_after_five_minutes(worker: Worker, company: Company) -> None:
    batch_id = company.batch([1_000])
    fund(worker, 0)
    worker.process(batch_id)
    check = check_of(company, batch_id)
    assert check.not_before is not None
    assert timedelta(seconds=299) < check.not_before - check.checked_at < timedelta(seconds=301)
    assert waits_until(company, batch_id) == check.not_before
    with company.sessions.begin() as session:
        session.execute(update(FundingCheck).values(not_before=func.now()))
    assert waits_until(company, batch_id) is None


@pytest.mark.parametrize(
    ("fault", "reason", "is_silent"),
    [
        ({"kind": "error_before_commit", "status": 503}, "HTTP 503", True),
        ({"kind": "reset_before_commit"}, "the connection failed", True),
        ({"kind": "garbage"}, "could not be parsed", True),
        (None, "The bank knows no such account. Check HUNTINGTON_FUNDING_ACCOUNT_ID.", False),
    ],
    ids=["error", "reset", "garbage", "unknown account"],
)
@pytest.mark.usefixtures("no_recheck")
def test_account_that_cannot_be_read_covers_nothing(
    worker: Worker, company: Company, fault: dict[str, object] | None, reason: str, is_silent: bool
) -> None:
    batch_id = company.batch([1_000])
    if fault is None:
        worker.options = replace(worker.options, funding_account_id="acct_other")
    else:
        worker.bank.control.inject_fault(**{"times": None, "path": ACCOUNT_PATH, **fault})  # type: ignore[arg-type]

    report = worker.process(batch_id)

    assert report.awaits is not None
    assert (report.status, report.awaits.outcome, report.awaits.missing_cents) == ("queued", "unreadable", None)
    assert reason in (company.batch_row(batch_id).error or "")
    assert posts(worker, company, batch_id) == 0
    assert company.open_alerts() == ([("bank_silent", "huntington")] if is_silent else [])
    (detail,) = alert_details(company)
    assert reason in detail
    assert f"batch {batch_id} ($10.00, queued " in detail


def test_bank_that_is_back_in_a_moment_gets_the_batch(worker: Worker, company: Company) -> None:
    batch_id = company.batch([1_000])
    worker.bank.control.inject_fault("error_before_commit", path=ACCOUNT_PATH, times=5)
    assert worker.process(batch_id).status == "completed"


def test_account_that_our_key_may_not_read_fails_the_run(worker: Worker, company: Company) -> None:
    batch_id = company.batch([1_000])
    worker.bank.control.inject_fault("unauthorized", path=ACCOUNT_PATH)
    with pytest.raises(BankUnauthorized):
        worker.process(batch_id)
    assert company.batch_row(batch_id).status == "queued"
    assert company.open_alerts() == [("bank_unauthorized", "huntington")]


def leave_unknown(worker: Worker, company: Company, cents: int, *, is_made: bool) -> int:
    """Process a batch whose only transfer gets no response, whether or not the bank has made it."""
    batch_id = company.batch([cents])
    (transaction,) = company.transactions(batch_id)
    key = f"seedtrust-transaction-{transaction.id}"
    kind = "reset_after_commit" if is_made else "reset_before_commit"
    worker.bank.control.inject_fault(kind, method="POST", reference=str(transaction.id))  # type: ignore[arg-type]
    worker.bank.control.inject_fault("error_before_commit", method="GET", idempotency_key=key, times=None)
    worker.process(batch_id)
    worker.bank.control.clear_faults()
    return batch_id


@pytest.mark.parametrize("is_deleted", [False, True], ids=["as it was", "deleted by a person"])
def test_unknown_transfer_reserves_its_cents(worker: Worker, company: Company, is_deleted: bool) -> None:
    unknown = leave_unknown(worker, company, 4_000, is_made=False)
    if is_deleted:
        with company.sessions.begin() as session:
            session.execute(text("delete from huntington_transactions"))
    fund(worker, 4_999)
    batch_id = company.batch([1_000])

    report = worker.process(batch_id)

    assert report.awaits is not None
    assert (report.awaits.reserved_cents, report.awaits.missing_cents) == (4_000, 1)
    assert "of which $40.00 is reserved for transfers that are being sent" in report.awaits.describe()
    fund(worker, 5_000)
    assert worker.process(batch_id).status == "completed"
    if not is_deleted:
        assert company.statuses(unknown) == ["processing"]


def test_accepted_transfer_is_debited_and_reserves_nothing(worker: Worker, company: Company) -> None:
    case = company.case()
    fund(worker, 6_000)
    worker.submit_ach(case, 5_000)
    assert available(worker) == 1_000
    assert worker.process(company.batch([1_000])).status == "completed"


def test_refused_and_rejected_transfers_reserve_nothing(worker: Worker, company: Company) -> None:
    case = company.case()
    _, rejected = worker.submit_ach(case)
    worker.bank.control.reject_reference(str(rejected), "closed account")
    refused = company.batch([7_000])
    worker.bank.control.inject_fault("refuse", code="invalid_account", amount_cents=7_000)
    with pytest.raises(AllTransfersFailed):
        worker.process(refused)
    worker.heal()
    fund(worker, 1_000)
    assert worker.process(company.batch([1_000])).status == "completed"


def test_transfer_that_the_bank_forgot_reserves_its_cents(worker: Worker, company: Company) -> None:
    worker.submit_ach(company.case(), 5_000)
    with company.sessions.begin() as session:
        session.execute(text("update ops.transfer_evidence set missing_since = now()"))
    fund(worker, 5_999)
    report = worker.process(company.batch([1_000]))
    assert report.awaits is not None
    assert report.awaits.missing_cents == 1


def test_own_transfer_to_send_again_is_counted_once(worker: Worker, company: Company) -> None:
    batch_id = leave_unknown(worker, company, 4_000, is_made=False)
    worker.heal(grace_seconds=0)
    assert company.statuses(batch_id) == ["pending"]
    fund(worker, 4_000)
    assert worker.process(batch_id).status == "completed"


def test_covered_batches_leave_nothing_to_the_others(worker: Worker, company: Company) -> None:
    batches = [company.big_batch(20, 1_000) for _ in range(4)]
    fund(worker, 59_999)

    reports = process_in_parallel(worker, batches)

    assert sorted(report.status for report in reports) == ["completed", "completed", "queued", "queued"]
    assert available(worker) == 19_999
    assert {status for batch_id in batches for status in company.statuses(batch_id)} == {"completed", "pending"}


def test_batches_that_are_all_covered_are_all_sent_in_parallel(
    worker: Worker, company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a stalled machine the responses about the other batches take longer than a batch waits for them.
    monkeypatch.setattr(funding, "MAX_RECHECK_SECONDS", 120.0)
    batches = [company.big_batch(20, 1_000) for _ in range(4)]
    fund(worker, 80_000)
    # So slow that batches are checked while the responses about others are still to come.
    worker.bank.control.inject_fault("late_response_after_commit", method="POST", times=40, seconds=0.2)

    reports = process_in_parallel(worker, batches)

    assert [report.status for report in reports] == ["completed"] * 4
    assert available(worker) == 0


def reserve(company: Company, batch_id: int, *, lease_seconds: float, outcome: str = "covered") -> None:
    """Leave a batch as a worker does that crashes after it has reserved the funds, before it sends anything."""
    with company.sessions.begin() as session:
        session.add(
            BatchLease(
                batch_id=batch_id,
                token="a token",
                holder="another run",
                expires_at=datetime.now(UTC) + timedelta(seconds=lease_seconds),
            )
        )
        session.add(
            FundingCheck(
                batch_id=batch_id,
                funding_account_id="acct_escrow",
                lease_token="a token",
                outcome=outcome,
                needed_cents=4_000,
                reserved_cents=0,
                available_cents=5_000,
            )
        )
        session.execute(
            update(HuntingtonBatch)
            .where(HuntingtonBatch.id == batch_id)
            .values(status="processing", started_at=func.now())
        )


def test_reservation_ends_with_the_lease_of_a_crashed_worker(worker: Worker, company: Company) -> None:
    crashed, batch_id = company.batch([4_000]), company.batch([2_000])
    reserve(company, crashed, lease_seconds=60)
    fund(worker, 5_000)
    report = worker.process(batch_id)
    assert report.awaits is not None
    assert (report.awaits.reserved_cents, report.awaits.missing_cents) == (4_000, 1_000)

    with company.sessions.begin() as session:
        session.execute(update(BatchLease).where(BatchLease.batch_id == crashed).values(expires_at=func.now()))
    assert worker.process(batch_id).status == "completed"

    worker.heal()
    report = worker.process(crashed)
    assert report.awaits is not None
    assert report.awaits.missing_cents == 1_000


def test_absurd_amount_reserves_no_more_than_the_bank_would_pay(worker: Worker, company: Company) -> None:
    covered = company.batch(case=company.case())
    for _ in range(2):
        company.transaction(covered, None, 2**63 - 1)
    reserve(company, covered, lease_seconds=60)
    batch_id = company.batch([1_000])
    fund(worker, 2 * MAX_AMOUNT_CENTS + 999)
    report = worker.process(batch_id)
    assert report.awaits is not None
    assert report.awaits.missing_cents == 1


def test_batch_queued_at_an_impossible_time_waits_as_others_do(worker: Worker, company: Company) -> None:
    batch_id = company.batch([1_000])
    with company.sessions.begin() as session:
        session.execute(text("update huntington_batches set queued_at = 'infinity'"))
    fund(worker, 0)
    worker.process(batch_id)
    assert waits_until(company, batch_id) is not None
    assert len(alert_details(company)) == 1


def test_claimed_batch_without_a_reservation_takes_nothing_from_others(worker: Worker, company: Company) -> None:
    claimed, batch_id = company.batch([4_000]), company.batch([2_000])
    reserve(company, claimed, lease_seconds=60)
    with company.sessions.begin() as session:
        # Its worker has claimed it again since, and has not checked the account yet.
        session.execute(update(BatchLease).where(BatchLease.batch_id == claimed).values(token="another token"))
    fund(worker, 2_000)
    assert worker.process(batch_id).status == "completed"


@pytest.mark.parametrize("code", ["insufficient_funds", "limit_exceeded"])
def test_refusal_for_lack_of_funds_stops_the_batch(worker: Worker, company: Company, code: str) -> None:
    batch_id = company.big_batch(60)
    first, *_ = [one.id for one in company.transactions(batch_id)]
    worker.bank.control.inject_fault("refuse", code=code, reference=str(first))  # type: ignore[arg-type]
    # Its refusal is the first response, and is being confirmed for longer than any other request takes.
    worker.bank.control.inject_fault("late_response_after_commit", method="POST", times=None, seconds=0.2)
    worker.bank.control.inject_fault("late_response_after_commit", method="GET", path="/v1/transfers", seconds=1)

    report = worker.process(batch_id)

    assert report.awaits is not None
    assert (report.status, report.awaits.outcome) == ("queued", FundingOutcome.REFUSED)
    assert report.counts["failed"] == 1
    assert report.counts["pending"] >= 60 - 3 * worker.options.concurrency
    assert report.awaits.needed_cents == report.counts["pending"] * 1_000
    assert waits_until(company, batch_id) is not None
    worker.bank.control.clear_faults()
    failed = company.transactions(batch_id)[0]
    assert (failed.status, failed.failure_reason) == ("failed", code)
    (detail,) = alert_details(company)
    assert f"Huntington refused transaction {first} ({code}), so the rest was not sent." in detail

    # It is sent later, without the payment whose key is spent.
    assert worker.process(batch_id).status == "completed_with_errors"
    assert worker.posts(first) == 1
    assert worker.paid_more_than_once([one.id for one in company.transactions(batch_id)]) == []


def test_batch_that_is_refused_again_loses_one_payment_each_time(worker: Worker, company: Company) -> None:
    batch_id = company.big_batch(30)
    worker.bank.control.inject_fault("refuse", code="limit_exceeded", times=None)
    failed = worker.process(batch_id).counts["failed"]
    assert failed <= worker.options.concurrency
    for again in (1, 2):
        assert worker.process(batch_id).counts["failed"] == failed + again


def test_refused_batch_with_nothing_left_to_send_does_not_wait(worker: Worker, company: Company) -> None:
    batch_id = company.batch([1_000])
    worker.bank.control.inject_fault("refuse", code="insufficient_funds")
    with pytest.raises(AllTransfersFailed, match="insufficient_funds"):
        worker.process(batch_id)
    assert company.batch_row(batch_id).status == "failed"
    assert alert_details(company) == []


def test_held_batch_waits_for_no_funds_and_is_due_once_released(worker: Worker, company: Company) -> None:
    batch_id = company.batch([1_000])
    fund(worker, 0)
    worker.process(batch_id)
    with company.sessions.begin() as session:
        hold_batch(session, batch_id, statuses=("queued",))
    assert alert_details(company) == []

    with company.sessions.begin() as session:
        release_batch(session, batch_id)

    assert waits_until(company, batch_id) is None
    fund(worker, 1_000)
    assert worker.process(batch_id).status == "completed"


def test_kill_switch_stops_a_batch_that_waits(worker: Worker, company: Company) -> None:
    batch_id = company.batch([1_000])
    fund(worker, 0)
    worker.process(batch_id)
    fund(worker, 1_000)
    with company.sessions.begin() as session:
        halt(session, "reconciling", "Maria")
    with pytest.raises(TransfersHalted):
        worker.process(batch_id)
    assert posts(worker, company, batch_id) == 0


def test_run_that_a_person_cancels_during_the_check_holds_its_batch(worker: Worker, company: Company) -> None:
    batch_id = company.batch([1_000])
    fund(worker, 0)
    worker.canceled_runs.add(worker.name)
    # It may be noticed first by the watch or at the end.
    with suppress(RunCanceled):
        worker.process(batch_id)
    assert company.batch_row(batch_id).status == "held"
    assert alert_details(company) == []


def test_smaller_batch_is_sent_while_a_larger_one_waits(worker: Worker, company: Company) -> None:
    large, small = company.batch([9_000]), company.batch([1_000])
    fund(worker, 5_000)
    assert worker.process(large).status == "queued"
    assert worker.process(small).status == "completed"
    assert len(alert_details(company)) == 1


def test_alert_has_the_missing_amount_and_the_batches_that_wait(worker: Worker, company: Company) -> None:
    queued_at = datetime(2026, 11, 30, 9, 15, tzinfo=UTC)
    first, second = company.batch([4_000], queued_at=queued_at), company.batch([2_500], queued_at=queued_at)
    fund(worker, 1_000)
    worker.process(first)
    worker.process(second)
    with company.sessions() as session:
        (finding,) = insufficient_funding(session)
    assert (finding.rule, finding.subject, finding.severity) == (
        "insufficient_funding",
        "funding account acct_escrow",
        "HIGH",
    )
    assert finding.detail == (
        "Funding account acct_escrow has $10.00 available, and the 2 batches that wait need $65.00. $55.00 is missing: "
        f"transfer at least that to it. Waiting, longest first: batch {first} ($40.00, queued 2026-11-30 09:15 UTC), "
        f"batch {second} ($25.00, queued 2026-11-30 09:15 UTC). A batch is checked again every few minutes, and sent "
        "by itself once it is covered; a smaller one may be sent before a larger one."
    )


@pytest.mark.parametrize(("minutes", "is_stuck"), [(14, False), (16, True)])
def test_waiting_batch_is_stuck_only_if_nobody_checks_it_again(
    worker: Worker, company: Company, minutes: int, is_stuck: bool
) -> None:
    batch_id = company.batch([1_000], queued_at=datetime.now(UTC) - timedelta(days=1))
    fund(worker, 0)
    worker.process(batch_id)
    with company.sessions.begin() as session:
        session.execute(update(FundingCheck).values(not_before=func.now() - timedelta(minutes=minutes)))
    with company.sessions() as session:
        found = batch_stuck(
            session,
            queued_seconds=900,
            processing_seconds=300,
            transaction_seconds=3600,
            halted_by_environment=False,
        )
    assert [finding.subject for finding in found] == ([f"batch {batch_id}"] if is_stuck else [])
