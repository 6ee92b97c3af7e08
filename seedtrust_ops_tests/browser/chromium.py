"""Starts the Chromium that is installed on this machine; it never downloads one.

Used by the browser tests and by `support.screenshots`.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
LAUNCH_SECONDS = 120


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a headless browser that can reach only this machine."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    assert found is not None, (
        f"No browser is installed (searched for {', '.join(NAMES)}). Install one, for example with "
        "`apt-get install chromium`, and run this again."
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found,
            timeout=LAUNCH_SECONDS * 1000,
            args=[
                # In a container /dev/shm is often too small for Chromium.
                "--disable-dev-shm-usage",
                # The tests must not depend on anything the UI loads from other hosts. Other sites are on this machine.
                "--host-resolver-rules=MAP *.test 127.0.0.1 , MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            ],
        )
        try:
            yield browser
        finally:
            browser.close()
