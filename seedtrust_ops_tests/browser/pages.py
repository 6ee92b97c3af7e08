"""The pages of Dagster's UI that operations staff use, and what is done on them, by the words that people read there.

A page that never shows what is waited for fails the test with Playwright's own account of what it showed instead.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, expect

SCREENSHOTS = Path(__file__).parents[2] / ".seedtrust" / "screenshots"
"""Ignored by git; each test's pictures are kept there until the next run."""
PATIENCE_MILLISECONDS = 90_000
"""How long the UI may take over anything: CI has two busy cores."""
RUN_ID = re.compile(r"/runs/([0-9a-f-]{36})")


class UserInterface:
    """One person's browser window on the UI at `address`."""

    def __init__(self, page: Page, address: str, scene: str) -> None:
        self.page = page
        self.address = address
        self.scene = scene

    def open(self, path: str) -> None:
        """Go to a page of the UI."""
        self.page.goto(f"{self.address}{path}", timeout=PATIENCE_MILLISECONDS, wait_until="domcontentloaded")

    def keep_picture(self, name: str) -> None:
        """Save what the window shows now."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{self.scene}-{name}.png", timeout=PATIENCE_MILLISECONDS)

    def launchpad(self, job: str) -> None:
        """Open a job's launchpad by its tab, as people find it."""
        self.open(f"/locations/seedtrust_ops/jobs/{job}")
        self.page.get_by_role("tab", name="Launchpad").click()
        expect(self.editor).to_be_visible()

    @property
    def editor(self) -> Locator:
        """The launchpad's text."""
        return self.page.locator(".CodeMirror-code").first

    def fill_in(self, field: str, number: int) -> None:
        """Type a number over the one that stands behind a field's name on the launchpad; nothing else."""
        # Until this is there, the page may still put its first text into the editor once more.
        expect(self.page.get_by_role("button", name="Scaffold missing config")).to_be_visible()
        line = self.editor.locator(".CodeMirror-line", has_text=f"{field}:")
        before = line.locator(".cm-number").inner_text()
        line.locator(".cm-number").click()
        expect(self.page.locator(".CodeMirror-focused")).to_be_visible()
        # No double click: whether two clicks are one depends on how busy the machine is.
        self.page.keyboard.press("End")
        for _ in before:
            self.page.keyboard.press("Backspace")
        self.page.keyboard.type(str(number))
        expect(line).to_have_text(f"{field}: {number}")

    def launch(self) -> str:
        """Press *Launch Run* and land on the run's page; return the run's id."""
        self.page.get_by_role("button", name="Launch Run").click()
        self.page.wait_for_url(RUN_ID, timeout=PATIENCE_MILLISECONDS)
        found = RUN_ID.search(self.page.url)
        assert found is not None
        return found[1]

    def only_events(self, words: str) -> None:
        """Leave of a run's log the events that say `words`: the UI draws those alone that there is room for."""
        self.page.get_by_placeholder("Filter").fill(words)


@contextmanager
def window(browser: Browser, address: str, scene: str) -> Iterator[UserInterface]:
    """A fresh window, with nothing remembered from another; `scene` begins the names of its pictures.

    It keeps a last picture, whatever happened.
    """
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, timezone_id="America/New_York")
    context.set_default_timeout(PATIENCE_MILLISECONDS)
    interface = UserInterface(context.new_page(), address, scene)
    try:
        yield interface
    finally:
        interface.keep_picture("last")
        context.close()
