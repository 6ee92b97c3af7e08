"""Takes the README's three screenshots of the UI, with its own `dev`, a generated week of work and a browser.

Run as `python -m seedtrust_ops_tests.support.screenshots`; the files are saved in docs/pictures. It tests nothing.
"""

import re
import sys
import tempfile
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path

import dagster as dg
from PIL import Image
from playwright.sync_api import expect
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.client import OpsClient
from seedtrust_ops.job_policies import JOB_POLICIES
from seedtrust_ops.tables import HuntingtonBatch
from seedtrust_ops_tests.browser.chromium import chromium
from seedtrust_ops_tests.browser.pages import UserInterface, window
from seedtrust_ops_tests.browser.sample_week import OFFICE_TIMEZONE, create_sample_week
from seedtrust_ops_tests.sandbox.dev_process import DevProcess, connect_to_bank, open_databases, queue_batch
from seedtrust_ops_tests.support.waiters import wait_until

OUTPUT_FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
WINDOW = {"width": 1250, "height": 820}
IMAGE_WIDTH = 1000
COLORS = 256
WIRES = 12
RUNS_PER_JOB = 2
WAIT_SECONDS = 600
OPEN_STATUSES = ("queued", "processing")
LAUNCHED_JOBS = [name for name in JOB_POLICIES if not name.startswith("example") and name != "process_huntington_batch"]


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="seedtrust-screenshots-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        # PostgreSQL's own user needs access.
        folder.chmod(0o755)
        dev = DevProcess(folder, {"DEV_ENV": "0"})
        try:
            with open_databases(dev) as (sessions, instance):
                address = f"http://127.0.0.1:{dev.port}"
                batch_run = _generate_work(dev, address, sessions, instance)
                with chromium() as browser, window(browser, address, "screenshots") as ui:
                    ui.page.set_viewport_size(WINDOW)
                    _take_batch_screenshot(ui, batch_run)
                    _take_week_screenshot(ui)
                    _take_jobs_screenshot(ui)
        finally:
            dev.stop()
    return 0


def _generate_work(
    dev: DevProcess, address: str, sessions: "sessionmaker[Session]", instance: dg.DagsterInstance
) -> str:
    """Create last week's rows, send a batch with one refused transfer, run every job; return the batch run's id."""
    today = datetime.now(OFFICE_TIMEZONE).date()
    with sessions.begin() as session:
        create_sample_week(session, today - timedelta(days=today.weekday() + 7))
    # The batch that `dev` itself queued must not get the refusal that is meant for ours.
    wait_until(lambda: not _open_batches(sessions), seconds=WAIT_SECONDS, every=0.5, what="the first batch to be sent")
    with connect_to_bank(dev) as bank:
        bank.inject_fault("refuse", method="POST", code="invalid_account")
        batch_id = queue_batch(dev, sessions, wires=WIRES)
        sent = dg.RunsFilter(tags={"seedtrust/batch_id": str(batch_id)}, statuses=[dg.DagsterRunStatus.SUCCESS])
        wait_until(lambda: instance.get_runs(sent), seconds=WAIT_SECONDS, every=0.5, what="the batch to be sent")
    with OpsClient(address, application="screenshots") as ops_client:
        ops_client.launch("process_huntington_batch", {"batch_id": 999_999})
        for _ in range(RUNS_PER_JOB):
            runs = [ops_client.launch(job) for job in LAUNCHED_JOBS]
            wait_until(
                lambda runs=runs: all(ops_client.job_run(run).status.is_finished for run in runs),
                seconds=WAIT_SECONDS,
                every=0.5,
                what="every job to have run",
            )
    return instance.get_runs(sent)[0].run_id


def _open_batches(sessions: "sessionmaker[Session]") -> int:
    with sessions() as session:
        return len(session.scalars(select(HuntingtonBatch.id).where(HuntingtonBatch.status.in_(OPEN_STATUSES))).all())


def _take_batch_screenshot(ui: UserInterface, run_id: str) -> None:
    ui.open(f"/runs/{run_id}")
    ui.filter_events("Yielded output")
    ui.page.get_by_role("row", name=re.compile("^Transactions")).get_by_text("Show Markdown").click()
    expect(ui.page.get_by_role("dialog").get_by_role("row")).to_have_count(1 + WIRES)
    _save(ui, "batch.png")


def _take_week_screenshot(ui: UserInterface) -> None:
    ui.open("/assets/operations_week")
    ui.page.get_by_role("row", name=re.compile("^Chart")).get_by_text("Show Markdown").click()
    expect(ui.page.get_by_role("img", name="The week")).to_be_visible()
    _save(ui, "week.png")


def _take_jobs_screenshot(ui: UserInterface) -> None:
    ui.open("/jobs")
    expect(ui.page.get_by_role("button", name=re.compile("ago$"))).to_have_count(len(LAUNCHED_JOBS) + 1)
    _save(ui, "jobs.png")


def _save(ui: UserInterface, name: str) -> None:
    """Save a screenshot of the window, scaled down and compressed."""
    OUTPUT_FOLDER.mkdir(parents=True, exist_ok=True)
    # A dialog fades in. Playwright fast-forwards the transition, so that no half-transparent dialog is saved.
    screenshot = Image.open(BytesIO(ui.page.screenshot(animations="disabled"))).convert("RGB")
    image = screenshot.resize(
        (IMAGE_WIDTH, round(screenshot.height * IMAGE_WIDTH / screenshot.width)), Image.Resampling.LANCZOS
    )
    image.quantize(COLORS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        OUTPUT_FOLDER / name, optimize=True
    )


if __name__ == "__main__":
    sys.exit(main())
