"""A week in shadow on a seeded company: what was planted differs, and nothing else.

A legacy stand-in does each day's work on the real tables, now before ours looks and now after.
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
from seedtrust_ops.domain.shadow_mode.transfer_dry_runs import unseen_batches
from seedtrust_ops.orchestration.schedules import office_today
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops.sandbox.seed.batches import Payable, Payment, draft_batch, payable_requests, queue_batches
from seedtrust_ops.sandbox.seed.seeder import seed_company
from seedtrust_ops.tables import DisbursementRequest, ReportRequest, ShadowDecision, User
from seedtrust_ops_tests.domain.shadow_mode.legacy_systems import Legacy
from seedtrust_ops_tests.domain.shadow_mode.time_shift import let_a_day_pass, zone_where_it_is_noon
from seedtrust_ops_tests.jobs.job_runner import process, run
from seedtrust_ops_tests.support.job_environment import Change
from seedtrust_ops_tests.support.office_factory import Office

DAYS = 7
PAYMENTS_A_DAY = 4


@pytest.fixture
def own_bank(tmp_path: Path) -> Iterator[BankProcess]:
    """A bank that knows no other test's transfers."""
    with start_bank(tmp_path / "bank.sqlite", api_key="a-bank-of-its-own", available_cents=10**12) as bank:
        yield bank


@pytest.fixture
def legacy(in_shadow: None, change: Change, sessions: sessionmaker[Session], own_bank: BankProcess) -> Legacy:
    """The legacy systems, beside ours in shadow, in an office where it is noon."""
    change(
        HUNTINGTON_API_URL=own_bank.url,
        HUNTINGTON_API_KEY=own_bank.api_key,
        HUNTINGTON_FUNDING_ACCOUNT_ID=own_bank.funding_account_id,
        SEEDTRUST_TIMEZONE=zone_where_it_is_noon(),
    )
    return Legacy(sessions, own_bank.control)


class Week:
    """The company's week: what is asked for, who works first, and what is planted to differ."""

    def __init__(self, legacy: Legacy, cipher: FernetFieldCipher) -> None:
        self.legacy = legacy
        self.sessions = legacy.sessions
        self.office = Office(legacy.sessions)
        self._cipher = cipher
        seed_company(application_engine(), cases=60, seed=7, encrypt=cipher.encrypt)
        with self.sessions.begin() as session:
            # The seed draws past approvals by lot, and no rule would have made most of them.
            session.execute(
                update(DisbursementRequest)
                .where(DisbursementRequest.approved_by.like("auto:%"))
                .values(approved_by="user:1")
            )
            self._payables = payable_requests(session, DAYS * PAYMENTS_A_DAY)
            self._admin = session.scalars(select(User.id).where(User.role == "admin", User.is_active)).first()
        self.planted: set[tuple[str, str]] = set()
        """Subject, and the reason or a part of it."""

    def ask_for_reports(self) -> list[int]:
        """Two that can be made, and one that can't."""
        return [self._report("account_balances"), self._report("disbursements"), self._report("no such report")]

    def queue_payments(self, more: list[Payable] | None = None) -> tuple[int, list[int]]:
        """Put the day's payments into a batch: wires, and an ACH that stays submitted."""
        chosen = [self._payables.pop() for _ in range(PAYMENTS_A_DAY)] + (more or [])
        payments = [Payment(one, "ach" if place == 0 else "wire") for place, one in enumerate(chosen)]
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


def look(*names: str) -> None:
    """Run jobs of ours, which are in shadow."""
    for name in names:
        ran = run(name)
        assert ran.success, ran.sentences
        assert ran.returned["shadow"]


def look_at_batches(sessions: sessionmaker[Session]) -> None:
    with sessions() as session:
        batches = [one.batch_id for one in unseen_batches(session, "process_huntington_batch")]
    for batch_id in batches:
        ran = process(batch_id)
        assert ran.success, ran.sentences


def in_turns(legacy_first: bool, theirs: object, ours: object) -> None:
    for work in (theirs, ours) if legacy_first else (ours, theirs):
        work()  # type: ignore[operator]


@pytest.mark.timeout(900)
def test_shadow_week_finds_the_planted_differences_and_only_those(
    legacy: Legacy, cipher: FernetFieldCipher, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    week = Week(legacy, cipher)
    began = datetime.now(UTC)
    for day in range(DAYS):
        first = day % 2 == 0
        if day == 1:
            plant_wrong_approvals(week)
        in_turns(first, legacy.approve_due, lambda: look("dr_auto_approval"))
        in_turns(first, legacy.approve_by_rules, lambda: look("rule_based_approval"))
        in_turns(first, lambda: legacy.remind_of_closings(office_today()), lambda: look("case_close_reminders"))
        if day % 3 == 0:
            in_turns(first, legacy.remind_of_balances, lambda: look("account_balance_reminders"))
        requests = week.ask_for_reports()
        fails = {requests[0]} if day == 3 else set()
        in_turns(
            first,
            lambda: legacy.make_reports(lambda one: one not in fails and one != requests[2]),  # noqa: B023
            lambda: look("report_generation"),
        )
        for one in fails:
            week.plant(f"report request {one}", "Traceback")
        send_the_days_payments(week, day, legacy_first=first)
        look("auto_heal_huntington_batches")
        if day == 5:
            legacy.letters.remove(next(one for one in legacy.letters if one[1] == "balance-reminder"))
        let_a_day_pass(sessions)
        legacy.letters = [(sent_at - timedelta(days=1), *rest) for sent_at, *rest in legacy.letters]  # type: ignore[misc]

    log = write_log(tmp_path / "letters.csv", legacy)
    since = (began - timedelta(days=DAYS)).isoformat()
    compared = CliRunner().invoke(app, ["shadow", "compare", "--since", since, "--letters", str(log), "--json"])

    assert compared.exit_code == 1, compared.output
    told = json.loads(compared.stdout)
    found = {(one["subject"], one["reason"]) for job in told["jobs"] for one in job["differences"]}
    unplanted = {
        one for one in found if not any(one[0] == subject and part in one[1] for subject, part in week.planted)
    }
    letters = {one for one in unplanted if one[0].startswith("balance-reminder to user ")}
    assert unplanted - letters == set()
    assert len(letters) == 1, "the letter that is not in the log"
    assert {subject for subject, _ in found - letters} == {subject for subject, _ in week.planted}
    assert told["differences"] == len(week.planted) + 1
    agreements = {job["job"]: job["agreements"] for job in told["jobs"]}
    assert all(agreements[job] for job in agreements if "approv" in job or "remind" in job)
    assert agreements["report_generation"] == DAYS * 3 - 1
    assert agreements["process_huntington_batch, auto_heal_huntington_batches"] == DAYS * PAYMENTS_A_DAY - 2
    # A week of looks is small: a decision that was made again is no row more.
    with sessions() as session:
        assert session.scalars(select(ShadowDecision.times)).all().count(DAYS) >= 1
    plain = CliRunner().invoke(app, ["shadow", "compare", "--since", since])
    assert "not compared: letters leave no trace" in plain.stdout
    assert any("the legacy worker took it for failed" in line for line in plain.stdout.splitlines())


def plant_wrong_approvals(week: Week) -> None:
    """A request that the cron forgets, one that it approves on hold, and one that a rule is too small for."""
    case = week.office.case()
    forgotten = week.office.request(case, 600_000, category="legal fees")
    week.legacy.misses.add(forgotten)
    week.plant(f"request {forgotten}", "ours would have since")
    held = week.office.request(week.office.case(), 600_000, category="legal fees", on_hold=True)
    week.legacy.approve(held, "auto:date")
    week.plant(f"request {held}", "it is on hold")
    large = week.office.request(week.office.case(), 60_000, category="travel", auto_authorize_at=None)
    week.legacy.approve(large, "auto:rule:3")
    week.plant(f"request {large}", "no rule approves it")


def send_the_days_payments(week: Week, day: int, *, legacy_first: bool) -> None:
    """On one day a wire is written off, on one it never left, and on one a request is paid that nobody approved."""
    unapproved = []
    if day == 5:
        request = week.office.request(week.office.case(), 600_000, category="legal fees", auto_authorize_at=None)
        unapproved = [Payable(request, 600_000, "Robin Vance")]
    batch_id, transactions = week.queue_payments(unapproved)
    times_out = transactions[1:2] if day == 2 else []
    loses = transactions[2:3] if day == 4 else []
    for one in times_out:
        week.plant(f"transaction {one}", "the bank says that it is completed")
    for one in loses:
        week.plant(f"transaction {one}", "the bank does not know it")
    for one in transactions[PAYMENTS_A_DAY:]:
        week.plant(f"transaction {one}", "not approved")
    in_turns(
        legacy_first,
        lambda: week.legacy.send_batch(batch_id, times_out=times_out, loses=loses),
        lambda: look_at_batches(week.sessions),
    )


def write_log(path: Path, legacy: Legacy) -> Path:
    """The mail provider's log, as --letters wants it."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["sent_at", "kind", "to"])
        rows.writerows([sent_at.isoformat(), kind, to] for sent_at, kind, to in legacy.letters if kind != "dr-approved")
    return path
