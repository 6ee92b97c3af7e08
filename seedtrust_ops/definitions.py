"""The Dagster code location: everything that Dagster loads, one line per job.

Each job's own file in `jobs` says when it runs and what it does.
"""

import dagster as dg

from seedtrust_ops.jobs import (
    account_balance_check,
    account_balance_reminders,
    auto_heal_huntington_batches,
    aws_status_check,
    case_close_reminders,
    dr_auto_approval,
    examples,
    explain_transfer,
    huntington_reconciliation,
    off_site_tracking,
    operations_review,
    process_huntington_batch,
    report_generation,
    requeue_failed_payments,
    retention,
    rule_based_approval,
    settle_transfer,
)
from seedtrust_ops.monitoring import job_health_sensor, job_run_sensor
from seedtrust_ops.orchestration.dagster_resources import resources
from seedtrust_ops.orchestration.executor import in_process

defs = dg.Definitions.merge(
    process_huntington_batch.defs,
    auto_heal_huntington_batches.defs,
    dr_auto_approval.defs,
    rule_based_approval.defs,
    case_close_reminders.defs,
    account_balance_reminders.defs,
    account_balance_check.defs,
    report_generation.defs,
    requeue_failed_payments.defs,
    huntington_reconciliation.defs,
    operations_review.defs,
    aws_status_check.defs,
    off_site_tracking.defs,
    retention.defs,
    settle_transfer.defs,
    explain_transfer.defs,
    examples.defs,
    job_run_sensor.defs,
    job_health_sensor.defs,
    # The executor of runs of no listed job, such as those launched from an asset's page.
    dg.Definitions(resources=resources(), executor=in_process),
)
