"""The run config that people type: a value outside of its limits fails the run at once, with a sentence."""

from collections.abc import Iterator
from typing import Any

import pytest
from annotated_types import Le

import seedtrust_ops.definitions
import seedtrust_ops.jobs.examples
from seedtrust_ops.formatting import MAX_ID
from seedtrust_ops.jobs.process_huntington_batch import ProcessBatchConfig
from seedtrust_ops.orchestration.job_factory import JobConfig
from seedtrust_ops_tests.jobs.job_runner import run
from seedtrust_ops_tests.support.factories import Company

__all__ = ["seedtrust_ops"]

BEYOND = 999_999_999_999_999_999_999
PERSON = {"operator": "ana@example.test", "reason": "as Huntington says"}


def configs(base: type[JobConfig] = JobConfig) -> Iterator[type[JobConfig]]:
    for config in base.__subclasses__():
        yield config
        yield from configs(config)


def test_numbers_have_limits_that_the_database_can_keep() -> None:
    numbers = {
        f"{config.__name__}.{name}": [one.le for one in field.metadata if isinstance(one, Le)]
        for config in configs()
        for name, field in config.model_fields.items()
        if field.annotation in (int, float)
    }
    assert {"ProcessBatchConfig.batch_id", "SettleTransferConfig.transaction_id"} <= numbers.keys()
    assert {name: limits for name, limits in numbers.items() if not limits or max(limits) > MAX_ID} == {}  # type: ignore[type-var]


@pytest.mark.usefixtures("bank_environment", "company")
@pytest.mark.parametrize(
    ("job", "config", "field"),
    [
        ("process_huntington_batch", {"batch_id": BEYOND}, "batch_id"),
        ("settle_transfer", {"transaction_id": BEYOND} | PERSON, "transaction_id"),
        ("explain_transfer", {"request_id": BEYOND, "bank_transfer_id": "tr_1"} | PERSON, "request_id"),
        ("report_generation", {"report_id": BEYOND}, "report_id"),
    ],
)
def test_number_of_21_digits_fails_the_run_once_and_is_named(job: str, config: dict[str, Any], field: str) -> None:
    result = run(job, {"ops": {job: {"config": config}}})
    assert (result.success, result.attempts) == (False, 1)
    assert result.messages == [
        f"{field} is '{BEYOND}' and must be less than or equal to {MAX_ID}. Nothing was done. Open this run in the "
        "launchpad, correct the config, and launch it."
    ]


@pytest.mark.usefixtures("bank_environment")
def test_largest_number_of_a_row_is_looked_up(company: Company) -> None:
    result = run("process_huntington_batch", {"ops": {"process_huntington_batch": {"config": {"batch_id": MAX_ID}}}})
    assert result.messages[0].startswith(f"There is no batch {MAX_ID}.")


def test_cleared_field_gets_its_default() -> None:
    assert ProcessBatchConfig(batch_id=None).batch_id == 0  # type: ignore[arg-type]
