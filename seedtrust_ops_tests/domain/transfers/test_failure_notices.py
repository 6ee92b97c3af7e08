"""The person who is responsible for a case is emailed about its transfers that fail, are rejected late or come back."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import SQLAlchemyError

from seedtrust_ops.domain.transfers import batch_processor
from seedtrust_ops.domain.transfers.auto_heal import find_reason_to_heal
from seedtrust_ops.domain.transfers.failure_notices import notify_of_failures
from seedtrust_ops.domain.transfers.failure_reasons import Cause, explain_failure
from seedtrust_ops.tables import (
    Alert,
    BankFeedCursor,
    BatchLease,
    Case,
    DisbursementRequest,
    HuntingtonTransaction,
    Notification,
    TransferFailure,
    User,
)
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker
from seedtrust_ops_tests.support.factories import BuiltCase, Company

BAD_NAME = "x" * 36


def emails(company: Company) -> list[Notification]:
    with company.sessions() as session:
        return list(session.scalars(select(Notification).order_by(Notification.id)))


def keys(company: Company) -> list[str]:
    return [one.dedupe_key for one in emails(company)]


def add_user(company: Company, role: str, *, is_active: bool = True) -> int:
    with company.sessions.begin() as session:
        number = session.scalars(select(User.id).order_by(User.id.desc()).limit(1)).one_or_none() or 0
        user = User(email=f"{role}-{number}@example.test", full_name=role, role=role, is_active=is_active)
        session.add(user)
        session.flush()
        return user.id


def bad_batch(company: Company, case: BuiltCase, failing: int = 1, good: int = 0) -> int:
    batch_id = company.batch([100] * good, case=case)
    for _ in range(failing):
        company.transaction(batch_id, company.request(case, 100), 100, payee_name=BAD_NAME)
    return batch_id


def batch_alerts(company: Company) -> list[str]:
    return [subject for rule, subject in company.open_alerts() if rule == "batch_failures"]


def test_failures_of_a_run_are_one_email_per_person(worker: Worker, company: Company) -> None:
    one, other = company.case(), company.case()
    batch_id = bad_batch(company, one, failing=37, good=1)
    alone = company.transaction(batch_id, company.request(other, 700), 700, routing_number="123456789")
    worker.process(batch_id)
    first, second = sorted(emails(company), key=lambda email: email.recipient_id or 0)
    assert first.dedupe_key == f"transfer-failed:{batch_id}:1:{one.specialist_id}"
    assert second.dedupe_key == f"transfer-failed:{batch_id}:1:{other.specialist_id}"
    assert (len(first.variables["rows"]), first.subject) == (37, f"37 payments of batch {batch_id} failed")
    (row,) = second.variables["rows"]
    assert (row["transaction"], row["amount_cents"]) == (str(alone), 700)
    assert row["explanation"] == (
        "Not sent: the routing number fails its check digit. Correct the payee's bank details, then put the payment "
        "into a new batch."
    )


def test_refused_transfer_is_emailed_with_the_next_step(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id = company.batch([100, 200], case=case)
    worker.bank.control.inject_fault("refuse", code="invalid_account", times=1)
    worker.process(batch_id)
    (email,) = emails(company)
    (row,) = email.variables["rows"]
    assert (
        "refused the account. Correct the payee's bank details, then put the payment into a new batch."
        in (row["explanation"])
    )


def test_late_rejection_is_one_email(worker: Worker, company: Company) -> None:
    case = company.case()
    _, transaction_id = worker.submit_ach(case)
    worker.bank.control.reject_reference(str(transaction_id), "account closed")
    worker.heal()
    worker.heal()
    (email,) = emails(company)
    assert email.dedupe_key == f"transfer-rejected:{transaction_id}:{case.specialist_id}"
    assert email.variables["explanation"].startswith("The bank rejected it: account closed. Correct")


@pytest.mark.parametrize(
    ("specialist", "manager", "admins", "expected"),
    [
        (True, True, 2, ["specialist"]),
        (False, True, 2, ["manager"]),
        (False, False, 2, ["admin", "admin"]),
        (False, None, 2, ["admin", "admin"]),
        (False, False, 0, ["oncall@example.test"]),
    ],
)
@pytest.mark.parametrize("event", ["failed", "rejected", "returned"])
def test_email_goes_down_the_chain_to_the_first_who_is_active(
    worker: Worker,
    company: Company,
    event: str,
    specialist: bool,
    manager: bool | None,
    admins: int,
    expected: Sequence[str],
) -> None:
    case = company.case(specialist_active=specialist)
    people = {case.specialist_id: "specialist"}
    if manager is not None:
        manager_id = add_user(company, "case_manager", is_active=manager)
        people[manager_id] = "manager"
        with company.sessions.begin() as session:
            session.execute(update(Case).where(Case.id == case.case_id).values(case_manager_id=manager_id))
    people |= {add_user(company, "admin"): "admin" for _ in range(admins)}
    add_user(company, "admin", is_active=False)
    if event == "failed":
        worker.process(bad_batch(company, case, good=1))
    else:
        _, transaction_id = worker.submit_ach(case)
        if event == "rejected":
            worker.bank.control.reject_reference(str(transaction_id), "account closed")
        else:
            worker.bank.control.return_reference(str(transaction_id), "R03")
        worker.heal()
    told = [people[one.recipient_id] if one.recipient_id else one.recipient_email for one in emails(company)]
    assert told == list(expected)
    assert {one.kind for one in emails(company)} == {f"transfer-{event}"}


@pytest.mark.parametrize(
    ("unusable", "expected"),
    [
        (("specialist",), ["specialist", "manager"]),
        (("specialist", "manager"), ["specialist", "manager", "admin"]),
        (("manager",), ["specialist"]),
        (("specialist", "manager", "admin"), ["specialist", "manager", "admin", "oncall@example.test"]),
    ],
)
def test_unusable_address_is_followed_by_the_next_in_the_chain(
    worker: Worker, company: Company, unusable: Sequence[str], expected: Sequence[str]
) -> None:
    case = company.case()
    manager_id, admin_id = add_user(company, "case_manager"), add_user(company, "admin")
    people = {case.specialist_id: "specialist", manager_id: "manager", admin_id: "admin"}
    with company.sessions.begin() as session:
        session.execute(update(Case).where(Case.id == case.case_id).values(case_manager_id=manager_id))
        for user_id, person in people.items():
            if person in unusable:
                session.execute(update(User).where(User.id == user_id).values(email=f"{person} at example.test"))
    worker.process(bad_batch(company, case, good=1))
    told = [people[one.recipient_id] if one.recipient_id else one.recipient_email for one in emails(company)]
    assert told == list(expected)


def test_nobody_to_email_opens_an_alert_that_says_so(worker: Worker, company: Company) -> None:
    worker.alert_emails = ()
    worker.process(bad_batch(company, company.case(specialist_active=False), good=1))
    assert emails(company) == []
    assert company.open_alerts() == [("notifications_failing", "transfer-failed emails without a recipient")]


def test_failures_that_nobody_could_be_emailed_about_stay_owed(worker: Worker, company: Company) -> None:
    """The alert lists all of them, and each is emailed once somebody is there, who may have had the run's email."""
    worker.alert_emails = ()
    staffed, unstaffed = company.case(), company.case(specialist_active=False)
    batch_id = bad_batch(company, staffed, good=1)
    failed = [
        company.transaction(batch_id, company.request(unstaffed, 100), 100, payee_name=BAD_NAME) for _ in range(2)
    ]
    worker.process(batch_id)
    second_batch = bad_batch(company, unstaffed)
    failed += [one.id for one in company.transactions(second_batch)]
    company.transaction(second_batch, company.request(staffed, 100), 100)
    worker.process(second_batch)
    with company.sessions() as session:
        alert = session.scalars(select(Alert).where(Alert.rule == "notifications_failing")).one()
    assert f"3 failed transactions (id {', '.join(map(str, failed))})" in alert.detail
    assert keys(company) == [f"transfer-failed:{batch_id}:1:{staffed.specialist_id}"]

    with company.sessions.begin() as session:
        session.execute(update(Case).where(Case.id == unstaffed.case_id).values(case_manager_id=staffed.specialist_id))
    worker.heal()
    worker.heal()
    emailed = [row["transaction"] for email in emails(company)[1:] for row in email.variables["rows"]]
    assert emailed == [str(one) for one in failed]
    assert [rule for rule, _ in company.open_alerts() if rule == "notifications_failing"] == []


def test_failures_of_a_worker_that_died_are_emailed_by_healing(
    worker: Worker, company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = company.case()
    batch_id = bad_batch(company, case, failing=2, good=1)

    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    # Killed after everything was recorded: its batch is neither finished nor given back.
    monkeypatch.setattr(batch_processor, "_finish", die)
    with pytest.raises(KeyboardInterrupt):
        worker.process(batch_id)
    assert keys(company) == []
    with company.sessions.begin() as session:
        session.execute(update(BatchLease).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    worker.heal()
    assert keys(company) == [f"transfer-failed:{batch_id}:1:{case.specialist_id}"]
    assert company.batch_row(batch_id).status == "completed_with_errors"


def test_failures_before_a_run_stopped_are_emailed_when_it_stops(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id = bad_batch(company, case, good=1)
    worker.bank.control.inject_fault("unauthorized")
    with pytest.raises(Exception, match="HUNTINGTON_API_KEY"):
        worker.process(batch_id)
    assert keys(company) == [f"transfer-failed:{batch_id}:1:{case.specialist_id}"]
    worker.bank.control.clear_faults()
    worker.process(batch_id)
    assert len(keys(company)) == 1


def test_failure_is_emailed_while_the_bank_answers_nothing(worker: Worker, company: Company) -> None:
    batch_id, transaction_id = worker.submit_ach(company.case())
    with company.sessions.begin() as session:
        session.execute(
            update(HuntingtonTransaction)
            .where(HuntingtonTransaction.id == transaction_id)
            .values(status="failed", failure_reason="by hand")
        )
    worker.bank.control.inject_fault("unauthorized", times=None)
    with pytest.raises(Exception, match="HUNTINGTON_API_KEY"):
        worker.heal()
    assert [one.split(":")[:2] for one in keys(company)] == [["transfer-failed", str(batch_id)]]


def test_failures_written_by_hand_are_one_email(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id = company.batch([100, 100, 100], case=case)
    worker.process(batch_id)
    with company.sessions.begin() as session:
        session.execute(update(HuntingtonTransaction).values(status="failed", failure_reason="by hand"))
        assert find_reason_to_heal(session) is not None
    # Before the bank says what they are.
    with company.sessions.begin() as session:
        assert notify_of_failures(session, ()) == 1
    (email,) = emails(company)
    assert len(email.variables["rows"]) == 3


def test_failure_that_is_none_any_more_is_not_emailed(worker: Worker, company: Company) -> None:
    batch_id = company.batch([100])
    worker.process(batch_id)
    with company.sessions.begin() as session:
        session.execute(update(HuntingtonTransaction).values(status="failed"))
        session.execute(update(HuntingtonTransaction).values(status="completed"))
    worker.heal()
    assert emails(company) == []


def test_batches_of_the_legacy_worker_alone_are_not_emailed(worker: Worker, company: Company) -> None:
    company.batch([100], status="completed")
    with company.sessions.begin() as session:
        session.execute(update(HuntingtonTransaction).values(status="failed", failure_reason="invalid_account"))
        assert session.scalars(select(TransferFailure)).all() == []


def test_due_email_and_untold_failure_are_reasons_to_heal(company: Company, worker: Worker) -> None:
    with company.sessions.begin() as session:
        now = datetime.now(UTC)
        session.add(BankFeedCursor(name="huntington", read_up_to=now, last_read_at=now))
    batch_id = bad_batch(company, company.case())
    worker.alert_emails = ()
    with pytest.raises(Exception, match="failed"):
        worker.process(batch_id)
    with company.sessions.begin() as session:
        assert find_reason_to_heal(session) == "1 email due"
        session.execute(update(Notification).values(status="sent"))
        assert find_reason_to_heal(session) is None
        session.execute(update(TransferFailure).values(notified_at=None))
        assert find_reason_to_heal(session) == "a transfer failed, and nobody has been notified yet"


@pytest.mark.parametrize(
    ("failing", "good", "is_alerted"),
    [(5, 95, False), (6, 94, True), (1, 8, False), (1, 9, False), (2, 8, True), (2, 18, False), (3, 17, True)],
)
def test_batch_failures_alerts_above_five_or_a_tenth(
    worker: Worker, company: Company, failing: int, good: int, is_alerted: bool
) -> None:
    batch_id = bad_batch(company, company.case(), failing, good)
    worker.process(batch_id)
    assert batch_alerts(company) == ([f"batch {batch_id}"] if is_alerted else [])


@pytest.mark.parametrize(
    ("code", "is_alerted"), [("invalid_account", False), ("insufficient_funds", True), ("limit_exceeded", True)]
)
def test_batch_failures_alerts_of_one_for_reasons_that_are_ours(
    worker: Worker, company: Company, code: str, is_alerted: bool
) -> None:
    batch_id = company.batch([100, 100, 100])
    worker.bank.control.inject_fault("refuse", code=code, times=1)  # type: ignore[arg-type]
    worker.process(batch_id)
    assert bool(batch_alerts(company)) is is_alerted
    with company.sessions() as session:
        details = session.execute(select(Alert.severity, Alert.detail).where(Alert.rule == "batch_failures")).all()
    assert all(severity == "HIGH" and code in detail for severity, detail in details)


def test_batch_failures_resolves_once_the_payments_are_made_good(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id = bad_batch(company, case, failing=6, good=1)
    worker.process(batch_id)
    failed = [one.disbursement_request_id for one in company.transactions(batch_id) if one.status == "failed"]
    retried, denied = failed[:3], failed[3:]
    with company.sessions.begin() as session:
        session.execute(update(DisbursementRequest).where(DisbursementRequest.id.in_(denied)).values(status="denied"))
    worker.heal()
    assert batch_alerts(company) == [f"batch {batch_id}"]
    again = company.batch(case=case, status="draft")
    for request_id in retried:
        company.transaction(again, request_id, 100)
    worker.heal()
    assert batch_alerts(company) == []


def test_rolled_back_failure_leaves_nothing(company: Company) -> None:
    batch_id = company.batch([100])
    with company.sessions() as session:
        session.add(BatchLease(batch_id=batch_id, holder="x", generation=1, expires_at=datetime.now(UTC)))
        session.execute(update(HuntingtonTransaction).values(status="failed"))
        session.rollback()
        assert session.scalars(select(TransferFailure)).all() == []
        with pytest.raises(SQLAlchemyError):
            session.execute(text("insert into ops.transfer_failures default values"))


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("invalid_account", Cause.PAYEE),
        ("account closed", Cause.PAYEE),
        ("not sent: the payee's name must be 1 to 35 printable characters", Cause.PAYEE),
        ("not sent: the account number is not 4 to 17 digits", Cause.PAYEE),
        ("not sent: disbursement request 5 is 'denied', not approved", Cause.OFFICE),
        (
            "not sent: the case's account has 4 cents available after what is in flight, and 5 cents are needed",
            "OFFICE",
        ),
        (
            "not sent: the bank has refused it before, and keeps that answer under its idempotency key. Put the "
            "payment into a batch as a new transaction",
            Cause.OFFICE,
        ),
        ("settled by ana: the bank says so", Cause.OFFICE),
        ("insufficient_funds", Cause.OURS),
        ("not sent: the account number can't be decrypted: the stored token is damaged", Cause.OURS),
        ("not sent: disbursement request 5 was changed after preflight", Cause.OURS),
        ("not sent: transaction 4 may already have paid disbursement request 5", Cause.OURS),
        ("not sent: something that nobody has foreseen", Cause.OURS),
        (None, Cause.OURS),
    ],
)
def test_reason_of_a_failure_has_a_cause_and_a_next_step(reason: str | None, cause: Cause | str) -> None:
    explanation = explain_failure(reason)
    assert explanation.cause is (Cause[cause] if isinstance(cause, str) and cause in Cause.__members__ else cause)
    assert explanation.next_step.endswith(".")
