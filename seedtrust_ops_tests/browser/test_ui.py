"""A person's day in Dagster's UI, on a real `seedtrust-ops dev`: a batch sent, a failure read, a schedule switched on.

Pictures of each step are kept in `.seedtrust/screenshots`. Each test has a window and rows of its own.
"""

import re

import pytest
from dagster._core.definitions.run_request import InstigatorType
from playwright.sync_api import expect
from sqlalchemy import select

from seedtrust_ops.domain.reports.submission import request_report
from seedtrust_ops.job_policies import JOB_POLICIES, Group
from seedtrust_ops.tables import Case, HuntingtonBatch, HuntingtonTransaction, JobRun, User
from seedtrust_ops_tests.browser.conftest import KEPT_IN_THE_QUEUE, Office
from seedtrust_ops_tests.browser.pages import UserInterface
from seedtrust_ops_tests.support.waiters import wait_until

# The first test waits for `dev` to come up, and on two busy cores every page may take its time.
pytestmark = pytest.mark.timeout(900)
MIRRORED_SECONDS = 180
UNKNOWN_BATCH = 999_999
SCHEDULE = "account_balance_check_schedule"
ROWS_IN_A_PREVIEW = 10


def test_batch_is_launched_by_its_number_alone_and_seen_to_complete(ui: UserInterface, office: Office) -> None:
    with office.sessions() as session:
        batch_id = session.scalars(select(HuntingtonBatch.id).where(HuntingtonBatch.status == "queued")).one()
    ui.launchpad("process_huntington_batch")
    ui.fill_in("batch_id", batch_id)
    ui.keep_picture("1-launchpad")
    run_id = ui.launch()
    expect(ui.page.get_by_text("Success", exact=True).first).to_be_visible()
    ui.keep_picture("2-run")

    _wait_for_job_run(office, run_id, "COMPLETED")
    with office.sessions() as session:
        assert session.get_one(HuntingtonBatch, batch_id).status == "completed"
        transactions = session.scalars(select(HuntingtonTransaction).where(HuntingtonTransaction.batch_id == batch_id))
        sent = {str(one.id): one.amount_cents for one in transactions}
    at_bank = [(one["reference"], one["amount_cents"]) for one in office.bank.ledger()["transfers"]]
    assert sorted(one for one in at_bank if one[0] in sent) == sorted(sent.items())

    ui.only_events("Yielded output")
    ui.page.get_by_role("row", name=re.compile("^transactions")).get_by_text("Show Markdown").click()
    rows = ui.page.get_by_role("dialog").get_by_role("row")
    expect(rows).to_have_count(1 + len(sent))
    ui.keep_picture("3-transactions")
    shown = [row.get_by_role("cell").first.inner_text() for row in rows.all()[1:]]
    assert sorted(shown) == sorted(sent)


def test_failed_run_says_what_happened_and_what_to_do(ui: UserInterface, office: Office) -> None:
    ui.launchpad("process_huntington_batch")
    ui.fill_in("batch_id", UNKNOWN_BATCH)
    run_id = ui.launch()
    expect(ui.page.get_by_text("Failure", exact=True).first).to_be_visible()
    ui.only_events("failed")
    sentence = f"There is no batch {UNKNOWN_BATCH}. Check the number in the run's config; nothing was sent."
    expect(ui.page.get_by_text(sentence).first).to_be_visible()
    ui.keep_picture("run")
    _wait_for_job_run(office, run_id, "ERROR")
    with office.sessions() as session:
        assert session.scalars(select(JobRun.error).where(JobRun.run_id == run_id)).one() == sentence


def test_schedule_that_is_switched_on_in_the_ui_is_on(ui: UserInterface, office: Office) -> None:
    assert SCHEDULE not in _switched_on(office)
    ui.open("/automation")
    ui.page.get_by_role("link", name=SCHEDULE).click()
    switch = ui.page.get_by_role("row", name="Running")
    expect(switch.get_by_role("checkbox")).not_to_be_checked()
    ui.keep_picture("1-off")
    switch.locator("label").click()
    wait_until(
        lambda: SCHEDULE in _switched_on(office),
        seconds=MIRRORED_SECONDS,
        every=0.2,
        what="the schedule to be on in the instance",
    )
    ui.page.reload(wait_until="domcontentloaded")
    expect(switch.get_by_role("checkbox")).to_be_checked()
    ui.keep_picture("2-on")


def test_report_that_was_asked_for_shows_its_first_rows_on_its_asset(ui: UserInterface, office: Office) -> None:
    with office.sessions.begin() as session:
        admins = select(User.id).where(User.role == "admin", User.is_active).limit(1)
        request_report(session, user_id=session.scalars(admins).one(), kind="account_balances", format_name="csv")
        open_cases = select(Case.case_number).where(Case.status != "closed").order_by(Case.id).limit(ROWS_IN_A_PREVIEW)
        first_cases = list(session.scalars(open_cases))
    ui.launchpad("report_generation")
    run_id = ui.launch()
    expect(ui.page.get_by_text("Success", exact=True).first).to_be_visible()
    ui.keep_picture("1-run")
    _wait_for_job_run(office, run_id, "COMPLETED")

    ui.open("/assets/reports/account_balances")
    preview = ui.page.get_by_role("row", name=re.compile("^preview"))
    rows = preview.get_by_role("table").get_by_role("row")
    expect(rows).to_have_count(1 + ROWS_IN_A_PREVIEW)
    preview.scroll_into_view_if_needed()
    ui.keep_picture("2-asset")
    assert [row.get_by_role("cell").first.inner_text() for row in rows.all()[1:]] == first_cases


def test_queued_run_that_is_revoked_in_the_ui_is_revoked_in_job_run(ui: UserInterface, office: Office) -> None:
    ui.launchpad(KEPT_IN_THE_QUEUE)
    run_id = ui.launch()
    expect(ui.page.get_by_text("Queued", exact=True).first).to_be_visible()
    _wait_for_job_run(office, run_id, "PENDING")
    ui.keep_picture("1-queued")
    ui.page.get_by_role("button", name="Terminate").click()
    ui.page.get_by_role("dialog").get_by_role("button", name="Terminate 1 run").click()
    _wait_for_job_run(office, run_id, "REVOKED")
    ui.open(f"/runs/{run_id}")
    expect(ui.page.get_by_text("Canceled", exact=True).first).to_be_visible()
    ui.keep_picture("2-revoked")


def test_every_job_is_listed_and_says_what_it_is_for(ui: UserInterface) -> None:
    ui.open("/jobs")
    for job in JOB_POLICIES:
        expect(ui.page.get_by_text(job, exact=True)).to_be_visible()
    ui.page.get_by_role("link", name="process_huntington_batch").get_by_role("img", name="info").hover()
    expect(ui.page.get_by_role("tooltip", name=re.compile("Send one queued Huntington batch"))).to_be_visible()
    ui.keep_picture("jobs")


def test_assets_stand_in_the_groups_of_the_business(ui: UserInterface) -> None:
    ui.open("/asset-groups")
    for group in (Group.TRANSFERS, Group.BALANCES, Group.REPORTS, Group.HEALTH):
        expect(ui.page.get_by_role("button", name=f"asset_group {group.value}")).to_be_visible()
    ui.keep_picture("groups")


def _switched_on(office: Office) -> set[str]:
    states = office.instance.all_instigator_state(instigator_type=InstigatorType.SCHEDULE)
    return {one.instigator_name for one in states if one.is_running}


def _wait_for_job_run(office: Office, run_id: str, status: str) -> None:
    def is_there() -> bool:
        with office.sessions() as session:
            return session.scalars(select(JobRun.status).where(JobRun.run_id == run_id)).one_or_none() == status

    wait_until(is_there, seconds=MIRRORED_SECONDS, every=0.2, what=f"JobRun of {run_id} to be {status}")
