"""The demo, its short form, from a bare environment to its exit code: it reconciles, and leaves nothing behind."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from seedtrust_ops_tests.support.waiters import wait_until

TRIES = 3
MISSED = "was done before anybody could kill its sender"
"""Where the demo itself stood still for the few seconds in which it was to kill; it says so, and is played again."""


@pytest.mark.takes_minutes
@pytest.mark.timeout(1_800)
def test_it_reconciles_and_leaves_nothing(open_folder: Path) -> None:
    home, scratch = open_folder / "home", open_folder / "scratch"
    home.mkdir()
    scratch.mkdir()
    bare = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(scratch)}
    for _ in range(TRIES):
        demo = subprocess.run(
            [sys.executable, "-m", "seedtrust_ops.cli.main", "demo", "--short"],
            env=bare,
            capture_output=True,
            text=True,
        )
        if MISSED not in demo.stdout:
            break
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "Difference: 0 cents" in demo.stdout
    assert re.search(r"Sending stopped at \d+ of 16", demo.stdout)
    assert re.search(r"Killed process \d+ with \d+ of batch", demo.stdout)
    assert list(home.iterdir()) == []
    assert [one.name for one in scratch.iterdir() if one.name.startswith("seedtrust-demo")] == []

    def left() -> list[int]:
        return [
            process.info["pid"]
            for process in psutil.process_iter(["pid", "cmdline"])
            if any(str(scratch) in argument for argument in process.info["cmdline"] or [])
        ]

    wait_until(lambda: not left(), what="the end of every process")
