"""A zygote is fit to be forked only where nothing that it has loaded changed since its process began."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from seedtrust_ops.config import environment_for_child
from seedtrust_ops.launcher.wire_protocol import CodeToLoad, LaunchOrder
from seedtrust_ops.launcher.zygote_client import Stale, WarmProcess
from seedtrust_ops_tests.launcher.quick_daemon import JOBS

CHANGES_AT_ONCE = "from pathlib import Path\nPath(__file__).touch()\n"


@pytest.mark.timeout(300)
def test_code_that_changes_before_the_zygotes_first_statement_is_noticed(tmp_path: Path) -> None:
    shutil.copy(JOBS, tmp_path / "quick_jobs.py")
    # Python loads it before anything else.
    first_loaded = tmp_path / "sitecustomize.py"
    first_loaded.write_text(CHANGES_AT_ONCE)
    code = CodeToLoad(sys.executable, "quick_jobs", str(tmp_path))
    environment = environment_for_child({"PYTHONPATH": str(tmp_path)})
    order = LaunchOrder("run-1", "{}", code, environment, str(tmp_path))

    async def fork() -> None:
        zygote = WarmProcess(order, str(tmp_path))
        try:
            await zygote.fork(order)
        finally:
            zygote.retire()
            os.waitpid(zygote.pid, 0)

    with pytest.raises(Stale, match=f"{first_loaded} changed while it was loaded"):
        asyncio.run(fork())
