"""A week in shadow mode on a seeded company: exactly the planted differences are found.

Fake legacy systems do each day's work on the real tables, sometimes before and sometimes after our evaluation.
"""

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker
from typer.testing import CliRunner

from seedtrust_ops.cli.main import app
from seedtrust_ops.database.engine import application_engine
from seedtrust_ops.domain.shadow_mode.decisions import undecided_batches
from seedtrust_ops.orchestration.schedules import office_today
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops.sandbox.seed.batches import Payable, Payment, draft_batch, payable_requests, queue_batches
from seedtrust_ops.sandbox.seed.seeder import seed_company
from seedtrust_ops.tables import DisbursementRequest, ReportRequest, ShadowDecision, User
from seedtrust_ops_tests.domain.shadow_mode.legacy_systems import LegacySystems
from seedtrust_ops_tests.domain.shadow_mode.simulated_time import shift_back_one_day, time_zone_at_noon
from seedtrust_ops_tests.jobs.job_runner import process, run
from seedtrust_ops_tests.support.case_factory import CaseFactory
from seedtrust_ops_tests.support.environment import SetVariables

DAYS = 7
PAYMENTS_A_DAY = 4


@pytest.fixture
def own_bank(tmp_path: Path) -> Iterator[BankProcess]:
    """A bank without transfers of other tests."""
    with start_bank(tmp_path / "bank.sqlite", api_key="a-bank-of-its-own", available_cents=10**12) as bank:
        yield bank


@pytest.fixture
def legacy(
    shadow_environment: None, set_variables: SetVariables, sessions: sessionmaker[Session], own_bank: BankProcess
) -> LegacySystems:
    """The legacy systems beside ours in shadow mode, in a time zone at noon."""
    set_variables(
        HUNTINGTON_API_URL=own_bank.url,
        HUNTINGTON_API_KEY=own_bank.api_key,
        HUNTINGTON_FUNDING_ACCOUNT_ID=own_bank.funding_account_id,
        SEEDTRUST_TIMEZONE=time_zone_at_noon(),
    )
    return LegacySystems(sessions, own_bank.control)


class Week:
    """The company's week: reports requested, payments queued, and the differences planted."""

    def __init__(self, legacy: LegacySystems, cipher: FernetFieldCipher) -> None:
        self.legacy = legacy
        self.sessions = legacy.sessions
        self.factory = CaseFactory(legacy.sessions)
        self._cipher = cipher
        seed_company(application_engine(), cases=60, seed=7, encrypt=cipher.encrypt)
        with self.sessions.begin() as session:
            # The seed assigns past approvals at random; no rule would have made most of them.
            session.execute(
                update(DisbursementRequest)
                .where(DisbursementRequest.approved_by.like("auto:%"))
                .values(approved_by="user:1")
            )
            self._payables = payable_requests(session, DAYS * PAYMENTS_A_DAY)
            self._admin = session.scalars(select(User.id).where(User.role == "admin", User.is_active)).first()
        self.planted: set[tuple[str, str]] = set()
        """The subject and (part of) the reason of each planted difference."""

    def request_reports(self) -> list[int]:
        """Request two valid reports and an invalid one."""
        return [self._report("account_balances"), self._report("disbursements"), self._report("no such report")]

    def queue_payments(self, more: list[Payable] | None = None) -> tuple[int, list[int]]:
        """Queue the day's payments as a batch: wires, and an ACH that stays submitted."""
        chosen = [self._payables.pop() for _ in range(PAYMENTS_A_DAY)] + (more or [])
        payments = [Payment(payable, "ach" if position == 0 else "wire") for position, payable in enumerate(chosen)]
        with self.sessions.begin() as session:
            batch = draft_batch(session, payments, self._cipher.encrypt)
            queue_batches(session, [batch.batch_id])
        return batch.batch_id, batch.transaction_ids

    def plant(self, subject: str, reason: str) -> None:
        self.planted.add((subject, reason))

    def _report(self, kind: str) -> int:
        with self.sessions.begin() as session:
            request = ReportRequest(user_id=self._admin, kind=kind, format="csv")
            session.add(request)
            session.flush()
            return request.id


def evaluate(*names: str) -> None:
    """Run our jobs, which are in shadow mode."""
    for name in names:
        result = run(name)
        assert result.success, result.messages
        assert result.returned["shadow"]


def evaluate_batches(sessions: sessionmaker[Session]) -> None:
    with sessions() as session:
        batches = [batch.batch_id for batch in undecided_batches(session, "process_huntington_batch")]
    for batch_id in batches:
        result = process(batch_id)
        assert result.success, result.messages


def run_in_order(legacy_first: bool, legacy_job: object, our_job: object) -> None:
    for work in (legacy_job, our_job) if legacy_first else (our_job, legacy_job):
        work()  # type: ignore[operator]


@pytest.mark.timeout(900)
def test_shadow_week_finds_the_planted_differences_and_only_those(
    legacy: LegacySystems,
    own_bank: BankProcess,
    cipher: FernetFieldCipher,
    sessions: sessionmaker[Session],
    tmp_path: Path,
) -> None:
    week = Week(legacy, cipher)
    began = datetime.now(UTC)
    for day in range(DAYS):
        first = day % 2 == 0
        if day == 1:
            plant_wrong_approvals(week)
            for status in ("completed", "rejected"):
                unknown = own_bank.control.add_unknown_transfer(status=status)
                week.plant(f"bank transfer {unknown['id']}", "no transaction explains it: its reference is no")
        run_in_order(first, legacy.approve_due, lambda: evaluate("dr_auto_approval"))
        run_in_order(first, legacy.approve_by_rules, lambda: evaluate("rule_based_approval"))
        run_in_order(
            first, lambda: legacy.send_case_close_reminders(office_today()), lambda: evaluate("case_close_reminders")
        )
        if day % 3 == 0:
            run_in_order(first, legacy.send_balance_reminders, lambda: evaluate("account_balance_reminders"))
        requests = week.request_reports()
        fails = {requests[0]} if day == 3 else set()
        run_in_order(
            first,
            lambda: legacy.generate_reports(lambda request_id: request_id not in fails and request_id != requests[2]),  # noqa: B023
            lambda: evaluate("report_generation"),
        )
        for request_id in fails:
            week.plant(f"report request {request_id}", "Traceback")
        send_daily_payments(week, day, legacy_first=first)
        evaluate("auto_heal_huntington_batches")
        if day == 5:
            legacy.emails.remove(next(email for email in legacy.emails if email[1] == "balance-reminder"))
        shift_back_one_day(sessions)
        legacy.emails = [(sent_at - timedelta(days=1), *rest) for sent_at, *rest in legacy.emails]  # type: ignore[misc]

    log = write_log(tmp_path / "emails.csv", legacy)
    since = (began - timedelta(days=DAYS)).isoformat()
    compared = CliRunner().invoke(app, ["shadow", "compare", "--since", since, "--emails", str(log), "--json"])

    assert compared.exit_code == 1, compared.output
    output = json.loads(compared.stdout)
    found = {
        (difference["subject"], difference["reason"]) for job in output["jobs"] for difference in job["differences"]
    }
    unplanted = {
        difference
        for difference in found
        if not any(difference[0] == subject and part in difference[1] for subject, part in week.planted)
    }
    missing_emails = {difference for difference in unplanted if difference[0].startswith("balance-reminder to user ")}
    assert unplanted - missing_emails == set()
    assert len(missing_emails) == 1, "the email that is not in the log"
    assert {subject for subject, _ in found - missing_emails} == {subject for subject, _ in week.planted}
    assert output["differences"] == len(week.planted) + 1
    agreements = {job["job"]: job["agreements"] for job in output["jobs"]}
    assert all(agreements[job] for job in agreements if "approv" in job or "remind" in job)
    assert agreements["report_generation"] == DAYS * 3 - 1
    assert agreements["process_huntington_batch, auto_heal_huntington_batches"] == DAYS * PAYMENTS_A_DAY - 2
    # A week of evaluations is small: a repeated decision adds no row.
    with sessions() as session:
        assert session.scalars(select(ShadowDecision.times)).all().count(DAYS) >= 1
    plain = CliRunner().invoke(app, ["shadow", "compare", "--since", since])
    assert "not compared: emails leave no trace" in plain.stdout
    assert any("the legacy worker set it to failed" in line for line in plain.stdout.splitlines())


def plant_wrong_approvals(week: Week) -> None:
    """Plant a request that the cron skips, one that it approves on hold, and one above the limit of its rule."""
    case = week.factory.case()
    skipped = week.factory.request(case, 600_000, category="legal fees")
    week.legacy.skipped_requests.add(skipped)
    week.plant(f"request {skipped}", "ours would have approved it since")
    held = week.factory.request(week.factory.case(), 600_000, category="legal fees", on_hold=True)
    week.legacy.approve(held, "auto:date")
    week.plant(f"request {held}", "it is on hold")
    large = week.factory.request(week.factory.case(), 60_000, category="travel", auto_authorize_at=None)
    week.legacy.approve(large, "auto:rule:3")
    week.plant(f"request {large}", "no rule approves it")


def send_daily_payments(week: Week, day: int, *, legacy_first: bool) -> None:
    """Plant a wire set to failed though sent, one that never left, and a payment without approval, on one day each."""
    unapproved = []
    if day == 5:
        request = week.factory.request(week.factory.case(), 600_000, category="legal fees", auto_authorize_at=None)
        unapproved = [Payable(request, 600_000, "Robin Vance")]
    batch_id, transactions = week.queue_payments(unapproved)
    times_out = transactions[1:2] if day == 2 else []
    lost = transactions[2:3] if day == 4 else []
    for transaction_id in times_out:
        week.plant(f"transaction {transaction_id}", "the bank reports completed")
    for transaction_id in lost:
        week.plant(f"transaction {transaction_id}", "the bank does not know it")
    for transaction_id in transactions[PAYMENTS_A_DAY:]:
        week.plant(f"transaction {transaction_id}", "not approved")
    run_in_order(
        legacy_first,
        lambda: week.legacy.send_batch(batch_id, times_out=times_out, lost=lost),
        lambda: evaluate_batches(week.sessions),
    )


def write_log(path: Path, legacy: LegacySystems) -> Path:
    """The mail provider's log, in the format of --emails."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["sent_at", "kind", "to"])
        rows.writerows([sent_at.isoformat(), kind, to] for sent_at, kind, to in legacy.emails if kind != "dr-approved")
    return path
