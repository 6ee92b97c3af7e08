"""Starts the Chromium that is installed on this machine; it never downloads one.

What is done in it is the tests' and `portraits`' business.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
LAUNCH_SECONDS = 120


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a browser without a window, which reaches this machine alone."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    assert found is not None, (
        f"No browser is installed (looked for {', '.join(NAMES)}): install Debian's with `apt-get install chromium`, "
        "then run this again."
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found,
            timeout=LAUNCH_SECONDS * 1000,
            args=[
                # In a container /dev/shm is often too small for it.
                "--disable-dev-shm-usage",
                # What the UI would fetch from elsewhere must make no difference.
                "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            ],
        )
        try:
            yield browser
        finally:
            browser.close()
