"""What runs of `quick_jobs.leave_a_mark` have told of themselves, and the files by which they are held and let go.

One file a test, so that no test reads another's.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedtrust_ops_tests.support.waiters import wait_until


@dataclass(frozen=True)
class Mark:
    """One execution of the op."""

    run_id: str
    version: str
    pid: int
    random: str
    variable: str
    folder: str


class Marks:
    """The marks in one file."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "mark"

    def config(self, *, hold: bool = False) -> dict[str, Any]:
        """The run config of a run that leaves its mark here; a held one stays until `let_go`."""
        return {"ops": {"leave_a_mark": {"config": {"file": str(self._file), "hold": hold}}}}

    def left(self) -> list[Mark]:
        """Every mark so far, in order."""
        if not self._file.exists():
            return []
        lines = [line.split("|") for line in self._file.read_text().splitlines()]
        return [Mark(run, version, int(pid), *rest) for run, version, pid, *rest in lines]

    def of(self, run_id: str) -> Mark:
        """The run's only mark, waited for."""
        wait_until(lambda: self._of(run_id), seconds=180, what=f"the mark of run {run_id}")
        (mark,) = self._of(run_id)
        return mark

    def _of(self, run_id: str) -> list[Mark]:
        return [mark for mark in self.left() if mark.run_id == run_id]

    def let_go(self) -> None:
        """Let held runs finish, those to come too."""
        self._file.with_suffix(".go").touch()

    @property
    def interruptions(self) -> list[str]:
        """What held runs were interrupted with."""
        file = self._file.with_suffix(".interrupted")
        return file.read_text().split() if file.exists() else []
