"""The Dagster code location: everything that Dagster loads, one line per job.

Each job's own file in `jobs` says when it runs and what it does.
"""

import dagster as dg

from seedtrust_ops.jobs.account_balance_check import (
    account_balance_check,
    account_balance_check_schedule,
    account_balances,
    account_balances_checks,
)
from seedtrust_ops.jobs.account_balance_reminders import account_balance_reminders, account_balance_reminders_schedule
from seedtrust_ops.jobs.auto_heal_huntington_batches import (
    auto_heal_huntington_batches,
    auto_heal_huntington_batches_schedule,
)
from seedtrust_ops.jobs.aws_status_check import aws_status_check, aws_status_check_schedule
from seedtrust_ops.jobs.case_close_reminders import case_close_reminders, case_close_reminders_schedule
from seedtrust_ops.jobs.dr_auto_approval import dr_auto_approval, dr_auto_approval_schedule
from seedtrust_ops.jobs.examples import example_jobs
from seedtrust_ops.jobs.huntington_reconciliation import (
    huntington_reconciliation,
    huntington_reconciliation_schedule,
    huntington_transfers,
    huntington_transfers_check,
)
from seedtrust_ops.jobs.off_site_tracking import off_site_tracking, off_site_tracking_schedule
from seedtrust_ops.jobs.operations_review import operations_review, operations_review_schedule, operations_week
from seedtrust_ops.jobs.process_huntington_batch import huntington_batch_sensor, process_huntington_batch
from seedtrust_ops.jobs.report_generation import report_assets, report_generation, report_generation_schedule
from seedtrust_ops.jobs.retention import retention, retention_schedule
from seedtrust_ops.jobs.rule_based_approval import pending_dr_sensor, rule_based_approval
from seedtrust_ops.monitoring.job_health_sensor import job_health_sensor
from seedtrust_ops.monitoring.job_run_sensor import job_run_sensor
from seedtrust_ops.orchestration.approval_output import approved_requests
from seedtrust_ops.orchestration.dagster_resources import (
    CloudFrontResource,
    DatabaseResource,
    FieldCipherResource,
    HeartbeatResource,
    HuntingtonResource,
    InternalApiResource,
    MailResource,
    PostHogResource,
    StorageResource,
)
from seedtrust_ops.orchestration.io_manager import in_memory_io_manager

defs = dg.Definitions(
    assets=[
        approved_requests,
        huntington_transfers,
        account_balances,
        operations_week,
        *report_assets,
    ],
    asset_checks=[
        *account_balances_checks,
        huntington_transfers_check,
    ],
    jobs=[
        process_huntington_batch,
        auto_heal_huntington_batches,
        dr_auto_approval,
        rule_based_approval,
        case_close_reminders,
        account_balance_reminders,
        account_balance_check,
        report_generation,
        huntington_reconciliation,
        operations_review,
        aws_status_check,
        off_site_tracking,
        retention,
        *example_jobs(),
    ],
    schedules=[
        auto_heal_huntington_batches_schedule,
        dr_auto_approval_schedule,
        case_close_reminders_schedule,
        account_balance_reminders_schedule,
        aws_status_check_schedule,
        account_balance_check_schedule,
        report_generation_schedule,
        huntington_reconciliation_schedule,
        operations_review_schedule,
        off_site_tracking_schedule,
        retention_schedule,
    ],
    sensors=[huntington_batch_sensor, pending_dr_sensor, job_run_sensor, job_health_sensor],
    resources={
        "cloudfront": CloudFrontResource(),
        "database": DatabaseResource(),
        "field_cipher": FieldCipherResource(),
        "heartbeat": HeartbeatResource(),
        "huntington": HuntingtonResource(),
        "internal_api": InternalApiResource(),
        "mail": MailResource(),
        "posthog": PostHogResource(),
        "storage": StorageResource(),
        # Return values are small and go into JobRun; no run writes pickle files.
        "io_manager": in_memory_io_manager,
    },
)
