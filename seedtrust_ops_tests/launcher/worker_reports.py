"""What runs of `quick_jobs.report_run` have reported, and the files that hold and release them.

One file per test, so that no test reads another's reports.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedtrust_ops_tests.support.waiters import wait_until


@dataclass(frozen=True)
class RunReport:
    """One execution of the op."""

    run_id: str
    version: str
    pid: int
    random: str
    variable: str
    folder: str


class RunReports:
    """The reports in one file."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "report"

    def config(self, *, hold: bool = False) -> dict[str, Any]:
        """The run config of a run that reports here; with `hold` it runs until `release`."""
        return {"ops": {"report_run": {"config": {"file": str(self._file), "hold": hold}}}}

    def read_all(self) -> list[RunReport]:
        """Return every report so far, in order."""
        if not self._file.exists():
            return []
        lines = [line.split("|") for line in self._file.read_text().splitlines()]
        return [RunReport(run, version, int(pid), *rest) for run, version, pid, *rest in lines]

    def wait_for(self, run_id: str) -> RunReport:
        """Wait for the run's report, which must be the only one; return it."""
        wait_until(lambda: self._read(run_id), seconds=180, what=f"the report of run {run_id}")
        (report,) = self._read(run_id)
        return report

    def _read(self, run_id: str) -> list[RunReport]:
        return [report for report in self.read_all() if report.run_id == run_id]

    def release(self) -> None:
        """Let held runs finish, including future ones."""
        self._file.with_suffix(".release").touch()

    @property
    def interruptions(self) -> list[str]:
        """The names of the exceptions that interrupted held runs."""
        file = self._file.with_suffix(".interrupted")
        return file.read_text().split() if file.exists() else []
