"""Daily work in the Dagster UI of a real `seedtrust-ops dev`: send a batch, read a failure, turn a schedule on.

Screenshots of each step are saved in `.seedtrust/screenshots`. Each test has its own window and rows.
"""

import os
import re
import signal

import httpx
import pytest
from dagster._core.definitions.run_request import InstigatorType
from playwright.sync_api import expect
from sqlalchemy import select

from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.domain.reports.submission import request_report
from seedtrust_ops.job_policies import JOB_POLICIES, Group
from seedtrust_ops.launcher.host_client import SOCKET_FILE
from seedtrust_ops.supervisor.worker_stack import CODE_SERVER_SOCKET
from seedtrust_ops.tables import Case, HuntingtonBatch, HuntingtonTransaction, JobRun, User
from seedtrust_ops_tests.browser.conftest import NEVER_STARTED_JOB, RunningDev
from seedtrust_ops_tests.browser.pages import UserInterface
from seedtrust_ops_tests.support.other_user import find_listening_addresses, find_reachable_by_another_user
from seedtrust_ops_tests.support.waiters import wait_until

# The first test waits for `dev` to start, and on two busy cores every page can be slow.
pytestmark = pytest.mark.timeout(900)
JOB_RUN_SECONDS = 180
UNKNOWN_BATCH = 999_999
SCHEDULE = "account_balance_check_schedule"
PREVIEW_ROWS = 10


def test_batch_is_launched_by_its_id_and_completes(ui: UserInterface, dev: RunningDev) -> None:
    with dev.sessions() as session:
        batch_id = session.scalars(select(HuntingtonBatch.id).where(HuntingtonBatch.status == "queued")).one()
    ui.launchpad("process_huntington_batch")
    ui.fill_in("batch_id", batch_id)
    ui.save_screenshot("1-launchpad")
    run_id = ui.launch()
    expect(ui.page.get_by_text("Success", exact=True).first).to_be_visible()
    ui.save_screenshot("2-run")

    _wait_for_job_run(dev, run_id, "COMPLETED")
    with dev.sessions() as session:
        assert session.get_one(HuntingtonBatch, batch_id).status == "completed"
        transactions = session.scalars(select(HuntingtonTransaction).where(HuntingtonTransaction.batch_id == batch_id))
        sent = {str(transaction.id): transaction.amount_cents for transaction in transactions}
    at_bank = [(transfer["reference"], transfer["amount_cents"]) for transfer in dev.bank.ledger()["transfers"]]
    assert sorted(transfer for transfer in at_bank if transfer[0] in sent) == sorted(sent.items())

    ui.filter_events("Yielded output")
    ui.page.get_by_role("row", name=re.compile("^Transactions")).get_by_text("Show Markdown").click()
    rows = ui.page.get_by_role("dialog").get_by_role("row")
    expect(rows).to_have_count(1 + len(sent))
    ui.save_screenshot("3-transactions")
    shown = [row.get_by_role("cell").first.inner_text() for row in rows.all()[1:]]
    assert sorted(shown) == sorted(sent)


def test_failed_run_shows_the_reason_and_what_to_do(ui: UserInterface, dev: RunningDev) -> None:
    ui.launchpad("process_huntington_batch")
    ui.fill_in("batch_id", UNKNOWN_BATCH)
    run_id = ui.launch()
    expect(ui.page.get_by_text("Failure", exact=True).first).to_be_visible()
    ui.filter_events("failed")
    message = f"There is no batch {UNKNOWN_BATCH}. Nothing was sent. Check the batch id in the run's config."
    expect(ui.page.get_by_text(message).first).to_be_visible()
    ui.save_screenshot("run")
    _wait_for_job_run(dev, run_id, "ERROR")
    with dev.sessions() as session:
        assert session.scalars(select(JobRun.error).where(JobRun.run_id == run_id)).one() == message


def test_schedule_can_be_turned_on(ui: UserInterface, dev: RunningDev) -> None:
    assert SCHEDULE not in _running_schedules(dev)
    ui.open("/automation")
    ui.page.get_by_role("link", name=SCHEDULE).click()
    switch = ui.page.get_by_role("row", name="Running")
    expect(switch.get_by_role("checkbox")).not_to_be_checked()
    ui.save_screenshot("1-off")
    switch.locator("label").click()
    wait_until(
        lambda: SCHEDULE in _running_schedules(dev),
        seconds=JOB_RUN_SECONDS,
        every=0.2,
        what="the schedule to be on in the instance",
    )
    ui.page.reload(wait_until="domcontentloaded")
    expect(switch.get_by_role("checkbox")).to_be_checked()
    ui.save_screenshot("2-on")


def test_report_asset_shows_a_preview_of_its_rows(ui: UserInterface, dev: RunningDev) -> None:
    with dev.sessions.begin() as session:
        admins = select(User.id).where(User.role == "admin", User.is_active).limit(1)
        request_report(session, user_id=session.scalars(admins).one(), kind="account_balances", format_name="csv")
        open_cases = select(Case.case_number).where(Case.status != "closed").order_by(Case.id).limit(PREVIEW_ROWS)
        first_cases = list(session.scalars(open_cases))
    ui.launchpad("report_generation")
    run_id = ui.launch()
    expect(ui.page.get_by_text("Success", exact=True).first).to_be_visible()
    ui.save_screenshot("1-run")
    _wait_for_job_run(dev, run_id, "COMPLETED")

    ui.open("/assets/reports/account_balances")
    preview = ui.page.get_by_role("row", name=re.compile("^Preview"))
    rows = preview.get_by_role("table").get_by_role("row")
    expect(rows).to_have_count(1 + PREVIEW_ROWS)
    preview.scroll_into_view_if_needed()
    ui.save_screenshot("2-asset")
    assert [row.get_by_role("cell").first.inner_text() for row in rows.all()[1:]] == first_cases


def test_terminated_queued_run_is_revoked_in_job_run(ui: UserInterface, dev: RunningDev) -> None:
    ui.launchpad(NEVER_STARTED_JOB)
    run_id = ui.launch()
    expect(ui.page.get_by_text("Queued", exact=True).first).to_be_visible()
    _wait_for_job_run(dev, run_id, "PENDING")
    ui.save_screenshot("1-queued")
    ui.page.get_by_role("button", name="Terminate").click()
    ui.page.get_by_role("dialog").get_by_role("button", name="Terminate 1 run").click()
    _wait_for_job_run(dev, run_id, "REVOKED")
    ui.open(f"/runs/{run_id}")
    expect(ui.page.get_by_text("Canceled", exact=True).first).to_be_visible()
    ui.save_screenshot("2-revoked")


def test_every_job_is_listed_with_its_description(ui: UserInterface) -> None:
    ui.open("/jobs")
    for job in JOB_POLICIES:
        expect(ui.page.get_by_text(job, exact=True)).to_be_visible()
    ui.page.get_by_role("link", name="process_huntington_batch").get_by_role("img", name="info").hover()
    expect(ui.page.get_by_role("tooltip", name=re.compile("Send one queued Huntington batch"))).to_be_visible()
    ui.save_screenshot("jobs")


def test_assets_are_listed_by_group(ui: UserInterface) -> None:
    ui.open("/asset-groups")
    for group in (Group.TRANSFERS, Group.BALANCES, Group.REPORTS, Group.HEALTH):
        expect(ui.page.get_by_role("button", name=f"asset_group {group.value}")).to_be_visible()
    ui.save_screenshot("groups")


def test_other_users_reach_only_web_pages_and_test_doubles_of_dev(dev: RunningDev) -> None:
    processes = dev.process.processes()
    # The sandbox servers stand for vendors, and listen on loopback as the vendors do on the internet.
    sandbox = find_listening_addresses(one for one in processes if "seedtrust_ops.sandbox" in " ".join(one.cmdline()))
    sockets = {file for file in dev.process.folder.rglob("*") if file.is_socket()}
    assert {file.name for file in sockets} >= {CODE_SERVER_SOCKET, SOCKET_FILE, ".s.PGSQL.5432"}
    addresses = find_listening_addresses(processes) | {str(file) for file in sockets}
    reached = find_reachable_by_another_user(
        {one for one in addresses if not str(one).startswith("/proc/self/")}, {file.parent for file in sockets}
    )
    assert reached - sandbox == {dev.process.port}


def test_dev_seeds_a_company_and_stops_completely_on_ctrl_c(dev: RunningDev) -> None:
    """The last test of this file, because `dev` is gone afterwards."""
    process = dev.process
    os.killpg(process.process.pid, signal.SIGINT)
    assert process.process.wait(240) == 0, process.log.read_text()
    assert "Seeded a company with 200 cases" in process.log.read_text()
    assert f"{dev.address} is ready" in process.log.read_text()
    assert "Traceback" not in process.log.read_text()
    assert not embedded_postgres.is_running(process.database)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{dev.address}/server_info", trust_env=False)


def _running_schedules(dev: RunningDev) -> set[str]:
    states = dev.instance.all_instigator_state(instigator_type=InstigatorType.SCHEDULE)
    return {state.instigator_name for state in states if state.is_running}


def _wait_for_job_run(dev: RunningDev, run_id: str, status: str) -> None:
    def is_there() -> bool:
        with dev.sessions() as session:
            return session.scalars(select(JobRun.status).where(JobRun.run_id == run_id)).one_or_none() == status

    wait_until(is_there, seconds=JOB_RUN_SECONDS, every=0.2, what=f"JobRun of {run_id} to be {status}")
