"""A zygote can be forked only if nothing that it has loaded changed since its process started."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from seedtrust_ops.config import environment_for_child
from seedtrust_ops.launcher.wire_protocol import CodeToLoad, LaunchRequest
from seedtrust_ops.launcher.zygote_client import StaleCode, ZygoteClient
from seedtrust_ops_tests.launcher.quick_daemon import JOBS_FILE

TOUCHES_ITSELF = "from pathlib import Path\nPath(__file__).touch()\n"


@pytest.mark.usefixtures("child_processes")
@pytest.mark.timeout(300)
def test_change_before_the_zygotes_first_statement_is_detected(tmp_path: Path) -> None:
    shutil.copy(JOBS_FILE, tmp_path / "quick_jobs.py")
    # Python imports it before anything else.
    first_loaded = tmp_path / "sitecustomize.py"
    first_loaded.write_text(TOUCHES_ITSELF)
    code = CodeToLoad(sys.executable, "quick_jobs", str(tmp_path))
    environment = environment_for_child({"PYTHONPATH": str(tmp_path)})
    order = LaunchRequest("run-1", "{}", code, environment, str(tmp_path))

    async def fork() -> None:
        zygote = ZygoteClient(order, str(tmp_path))
        try:
            await zygote.fork(order)
        finally:
            zygote.retire()
            os.waitpid(zygote.pid, 0)

    with pytest.raises(StaleCode, match=f"{first_loaded} changed while it was loaded"):
        asyncio.run(fork())
