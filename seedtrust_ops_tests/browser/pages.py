"""Page objects for the pages of the Dagster UI that operations staff use; elements are found by their visible text.

If a page does not show an expected element, the test fails with Playwright's description of what it showed instead.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, expect

SCREENSHOTS = Path(__file__).parents[2] / ".seedtrust" / "screenshots"
"""Ignored by git; each test's screenshots are kept there until the next run."""
TIMEOUT_MILLISECONDS = 90_000
"""How long the UI may take for any action: CI has two busy cores."""
RUN_ID = re.compile(r"/runs/([0-9a-f-]{36})")


class UserInterface:
    """One browser window on the UI at `address`."""

    def __init__(self, page: Page, address: str, test_name: str) -> None:
        self.page = page
        self.address = address
        self.test_name = test_name

    def open(self, path: str) -> None:
        """Go to a page of the UI."""
        self.page.goto(f"{self.address}{path}", timeout=TIMEOUT_MILLISECONDS, wait_until="domcontentloaded")

    def save_screenshot(self, name: str) -> None:
        """Save a screenshot of the window."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{self.test_name}-{name}.png", timeout=TIMEOUT_MILLISECONDS)

    def launchpad(self, job: str) -> None:
        """Open a job's launchpad through its tab, as users do."""
        self.open(f"/locations/seedtrust_ops/jobs/{job}")
        self.page.get_by_role("tab", name="Launchpad").click()
        expect(self.editor).to_be_visible()

    @property
    def editor(self) -> Locator:
        """The launchpad's config editor."""
        return self.page.locator(".CodeMirror-code").first

    def fill_in(self, field: str, number: int) -> None:
        """Replace the number after a field's name in the launchpad's editor, and nothing else."""
        # Until this button is visible, the page may still overwrite the editor with the initial config.
        expect(self.page.get_by_role("button", name="Scaffold missing config")).to_be_visible()
        line = self.editor.locator(".CodeMirror-line", has_text=f"{field}:")
        before = line.locator(".cm-number").inner_text()
        line.locator(".cm-number").click()
        expect(self.page.locator(".CodeMirror-focused")).to_be_visible()
        # Not by double-click: on a busy machine it can count as two single clicks.
        self.page.keyboard.press("End")
        for _ in before:
            self.page.keyboard.press("Backspace")
        self.page.keyboard.type(str(number))
        expect(line).to_have_text(f"{field}: {number}")

    def launch(self) -> str:
        """Press *Launch Run* and wait for the run's page; return the run id."""
        self.page.get_by_role("button", name="Launch Run").click()
        self.page.wait_for_url(RUN_ID, timeout=TIMEOUT_MILLISECONDS)
        found = RUN_ID.search(self.page.url)
        assert found is not None
        return found[1]

    def filter_events(self, text: str) -> None:
        """Filter a run's log to events with `text`: the UI renders only the events that fit into the window."""
        self.page.get_by_placeholder("Filter").fill(text)


@contextmanager
def window(browser: Browser, address: str, test_name: str) -> Iterator[UserInterface]:
    """Yield a new window with its own browser context; its screenshots are named after `test_name`.

    A last screenshot is saved even if the test fails.
    """
    expect.set_options(timeout=TIMEOUT_MILLISECONDS)
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, timezone_id="America/New_York")
    context.set_default_timeout(TIMEOUT_MILLISECONDS)
    interface = UserInterface(context.new_page(), address, test_name)
    try:
        yield interface
    finally:
        interface.save_screenshot("last")
        context.close()
