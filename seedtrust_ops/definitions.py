"""The code location on one page: what Dagster loads. Each job's own file says when it runs and what it does."""

import dagster as dg

from seedtrust_ops.jobs.auto_heal_huntington_batches import (
    auto_heal_huntington_batches,
    auto_heal_huntington_batches_schedule,
)
from seedtrust_ops.jobs.process_huntington_batch import huntington_batch_sensor, process_huntington_batch
from seedtrust_ops.monitoring.job_run_sensor import job_run_sensor
from seedtrust_ops.resources.database import DatabaseResource
from seedtrust_ops.resources.field_encryption import FieldCipherResource
from seedtrust_ops.resources.huntington_bank import HuntingtonResource

definitions = dg.Definitions(
    jobs=[process_huntington_batch, auto_heal_huntington_batches],
    schedules=[auto_heal_huntington_batches_schedule],
    sensors=[huntington_batch_sensor, job_run_sensor],
    resources={
        "database": DatabaseResource(),
        "field_cipher": FieldCipherResource(),
        "huntington": HuntingtonResource(),
        # What jobs return is small and goes into JobRun; no run leaves pickles on the disk.
        "io_manager": dg.mem_io_manager,
    },
)
