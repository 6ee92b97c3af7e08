"""Stock Dagster with the every-minute jobs as its guide shows them: schedules that launch a run at every tick."""

import dagster as dg

from bench.stock import definitions as polling
from seedtrust_ops.jobs.auto_heal_huntington_batches import auto_heal_huntington_batches
from seedtrust_ops.jobs.report_generation import report_generation
from seedtrust_ops.orchestration.dagster_resources import MailResource, StorageResource

heal_op, report_op = (
    job.get_node_named(job.name).definition for job in (auto_heal_huntington_batches, report_generation)
)


@dg.job
def heal() -> None:
    heal_op()


@dg.job
def reports() -> None:
    report_op()


definitions = dg.Definitions.merge(
    # Not imported by name: Dagster allows only one Definitions object per module.
    polling.definitions,
    dg.Definitions(
        jobs=[heal, reports],
        schedules=[
            dg.ScheduleDefinition(job=job, cron_schedule="* * * * *", default_status=dg.DefaultScheduleStatus.RUNNING)
            for job in (heal, reports)
        ],
        resources={"mail": MailResource(), "storage": StorageResource()},
    ),
)
