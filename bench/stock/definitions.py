"""The code location of stock Dagster: the same op, and a sensor that polls."""

import dagster as dg

from seedtrust_ops.domain.transfers.batch_lifecycle import list_queued_batches
from seedtrust_ops.jobs.process_huntington_batch import NAME, process_huntington_batch
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, FieldCipherResource, HuntingtonResource

send_op = process_huntington_batch.get_node_named(NAME).definition


@dg.job
def send_batch() -> None:
    send_op()


@dg.sensor(job=send_batch, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def queued_batch_sensor(_context: dg.SensorEvaluationContext, database: DatabaseResource) -> dg.SensorResult:
    with database.sessions()() as session:
        batches = list_queued_batches(session)
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=f"{batch.batch_id}-{batch.generation}",
                run_config={"ops": {NAME: {"config": {"batch_id": batch.batch_id}}}},
            )
            for batch in batches
        ]
    )


definitions = dg.Definitions(
    jobs=[send_batch],
    sensors=[queued_batch_sensor],
    resources={
        "database": DatabaseResource(),
        "field_cipher": FieldCipherResource(),
        "huntington": HuntingtonResource(),
    },
)
