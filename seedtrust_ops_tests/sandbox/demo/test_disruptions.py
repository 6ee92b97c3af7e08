"""The demo reads the result of its second run from that run's log."""

from pathlib import Path

import pytest

from seedtrust_ops.domain.transfers.batch_processor import BatchReport
from seedtrust_ops.jobs.process_huntington_batch import summarize_batch
from seedtrust_ops.sandbox.demo.disruptions import second_run_result


@pytest.mark.parametrize(
    ("held_by", "result"), [("run-1", "saw that the first run holds batch 7"), (None, "saw that batch 7 was already")]
)
def test_second_run_result_follows_the_log_of_the_run(tmp_path: Path, held_by: str | None, result: str) -> None:
    log = tmp_path / "second_run.log"
    log.write_text(f"INFO {summarize_batch(BatchReport(7, 'processing', {}, {}, held_by))}\n")
    assert result in second_run_result(log, 7, 0)


def test_second_run_failure_is_shown_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "second_run.log"
    log.write_text("x" * 400 + "the error")
    message = second_run_result(log, 7, 1)
    assert "FAILED" in message
    assert message.endswith("the error")
