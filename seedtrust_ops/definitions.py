"""The code location on one page: what Dagster loads. Each job's own file says when it runs and what it does."""

import dagster as dg

from seedtrust_ops.jobs.auto_heal_huntington_batches import (
    auto_heal_huntington_batches,
    auto_heal_huntington_batches_schedule,
)
from seedtrust_ops.jobs.aws_status_check import aws_status_check, aws_status_check_schedule
from seedtrust_ops.jobs.process_huntington_batch import huntington_batch_sensor, process_huntington_batch
from seedtrust_ops.monitoring.job_run_sensor import job_run_sensor
from seedtrust_ops.resources.cloudfront import CloudFrontResource
from seedtrust_ops.resources.database import DatabaseResource
from seedtrust_ops.resources.field_encryption import FieldCipherResource
from seedtrust_ops.resources.huntington_bank import HuntingtonResource
from seedtrust_ops.resources.internal_api import InternalApiResource
from seedtrust_ops.resources.storage import StorageResource

definitions = dg.Definitions(
    jobs=[
        process_huntington_batch,
        auto_heal_huntington_batches,
        aws_status_check,
    ],
    schedules=[
        auto_heal_huntington_batches_schedule,
        aws_status_check_schedule,
    ],
    sensors=[huntington_batch_sensor, job_run_sensor],
    resources={
        "cloudfront": CloudFrontResource(),
        "database": DatabaseResource(),
        "field_cipher": FieldCipherResource(),
        "huntington": HuntingtonResource(),
        "internal_api": InternalApiResource(),
        "storage": StorageResource(),
        # What jobs return is small and goes into JobRun; no run leaves pickles on the disk.
        "io_manager": dg.mem_io_manager,
    },
)
