"""Takes the README's pictures of the UI: a `dev` of its own, a week of work, a browser, three small files.

Run as `python -m seedtrust_ops_tests.support.screenshots`; the pictures go to docs/pictures. It checks nothing.
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
from seedtrust_ops_tests.browser.sample_week import OFFICE, plant_week
from seedtrust_ops_tests.sandbox.laptop import Laptop, bank_of, connected, queue_a_batch
from seedtrust_ops_tests.support.waiters import wait_until

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
WINDOW = {"width": 1250, "height": 820}
WIDTH = 1000
COLOURS = 256
WIRES = 12
ROUNDS = 2
QUIET_SECONDS = 600
OPEN = ("queued", "processing")
LAUNCHED = [name for name in JOB_POLICIES if not name.startswith("example") and name != "process_huntington_batch"]


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="seedtrust-portraits-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        # PostgreSQL's own user must be able to enter.
        folder.chmod(0o755)
        laptop = Laptop(folder, {"DEV_ENV": "0"})
        try:
            with connected(laptop) as (sessions, instance):
                address = f"http://127.0.0.1:{laptop.port}"
                batch_run = _live(laptop, address, sessions, instance)
                with chromium() as browser, window(browser, address, "portrait") as ui:
                    ui.page.set_viewport_size(WINDOW)
                    _portray_batch(ui, batch_run)
                    _portray_week(ui)
                    _portray_jobs(ui)
        finally:
            laptop.stop()
    return 0


def _live(laptop: Laptop, address: str, sessions: "sessionmaker[Session]", instance: dg.DagsterInstance) -> str:
    """Plant last week, run every job a few times, send a batch of which the bank refuses one; return that run's id."""
    today = datetime.now(OFFICE).date()
    with sessions.begin() as session:
        plant_week(session, today - timedelta(days=today.weekday() + 7))
    # The batch that `dev` itself queued must not meet the refusal that is meant for ours.
    wait_until(lambda: not _open_batches(sessions), seconds=QUIET_SECONDS, every=0.5, what="the first batch to be sent")
    with bank_of(laptop) as bank:
        bank.order_fault("refuse", method="POST")
        batch_id = queue_a_batch(laptop, sessions, wires=WIRES)
        sent = dg.RunsFilter(tags={"seedtrust/batch_id": str(batch_id)}, statuses=[dg.DagsterRunStatus.SUCCESS])
        wait_until(lambda: instance.get_runs(sent), seconds=QUIET_SECONDS, every=0.5, what="the batch to be sent")
    with OpsClient(address, application="portraits") as operations:
        operations.launch("process_huntington_batch", {"batch_id": 999_999})
        for _ in range(ROUNDS):
            runs = [operations.launch(job) for job in LAUNCHED]
            wait_until(
                lambda runs=runs: all(operations.job_run(one).status.is_over for one in runs),
                seconds=QUIET_SECONDS,
                every=0.5,
                what="every job to have run",
            )
    return instance.get_runs(sent)[0].run_id


def _open_batches(sessions: "sessionmaker[Session]") -> int:
    with sessions() as session:
        return len(session.scalars(select(HuntingtonBatch.id).where(HuntingtonBatch.status.in_(OPEN))).all())


def _portray_batch(ui: UserInterface, run_id: str) -> None:
    ui.open(f"/runs/{run_id}")
    ui.only_events("Yielded output")
    ui.page.get_by_role("row", name=re.compile("^transactions")).get_by_text("Show Markdown").click()
    expect(ui.page.get_by_role("dialog").get_by_role("row")).to_have_count(1 + WIRES)
    _keep(ui, "batch.png")


def _portray_week(ui: UserInterface) -> None:
    ui.open("/assets/operations_week")
    ui.page.get_by_role("row", name=re.compile("^the week")).get_by_text("Show Markdown").click()
    expect(ui.page.get_by_role("img", name="The week")).to_be_visible()
    _keep(ui, "week.png")


def _portray_jobs(ui: UserInterface) -> None:
    ui.open("/jobs")
    expect(ui.page.get_by_role("button", name=re.compile("ago$"))).to_have_count(len(LAUNCHED) + 1)
    _keep(ui, "jobs.png")


def _keep(ui: UserInterface, name: str) -> None:
    """Write what the window shows, small."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    shown = Image.open(BytesIO(ui.page.screenshot())).convert("RGB")
    small = shown.resize((WIDTH, round(shown.height * WIDTH / shown.width)), Image.Resampling.LANCZOS)
    small.quantize(COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        PICTURES / name, optimize=True
    )


if __name__ == "__main__":
    sys.exit(main())
