"""Shadow mode for a job's op: its decisions are recorded, and the run says that nothing else was done.

How decisions are made without side effects is in `domain/shadow_mode`; settings say which jobs are in shadow mode.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import dagster as dg

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.shadow_mode.decisions import Decision, record_decisions, transaction_start_time
from seedtrust_ops.formatting import pluralize
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.orchestration.metadata import ROWS_SHOWN, markdown_table
from seedtrust_ops.orchestration.user_facing_failures import user_facing_failures

SHADOW_TAG = "seedtrust/shadow"
DryRunFunction = Callable[[Sessions, str], Sequence[Decision]]


def is_in_shadow_mode(job: str) -> bool:
    """Return whether the job only records what it would do (SEEDTRUST_SHADOW, SEEDTRUST_SHADOW_JOBS)."""
    with user_facing_failures():
        return get_settings().shadow.covers(job)


def run_in_shadow_mode(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    job: str,
    database: DatabaseResource,
    dry_run: DryRunFunction,
) -> dict[str, Any]:
    """Record and show what a job would do now; return the run's result for JobRun.

    Args:
        context: the context of the op or asset.
        job: the name of the job.
        database: where the decisions are recorded; nothing else is written.
        dry_run: given sessions and the job's name, returns what the job would do now.
    """
    context.instance.add_run_tags(context.run_id, {SHADOW_TAG: "true"})
    with user_facing_failures():
        sessions = database.sessions()
        with sessions() as session:
            began = transaction_start_time(session)
        decisions = dry_run(sessions, job)
        new = run_in_transaction(sessions, partial(record_decisions, job=job, decisions=decisions, began=began))
    counts = Counter(one.decision for one in decisions)
    context.log.info(
        f"Shadow mode: recorded {pluralize(len(decisions), 'decision')} ({new} new). No other change was made."
    )
    metadata = {
        "Shadow mode": dg.MetadataValue.text(
            "Decisions only; nothing was changed. Compare with the legacy system: `seedtrust-ops shadow compare`"
        ),
        "Decisions by kind": markdown_table(["Decision", "Count"], sorted(counts.items())),
        f"Decisions (first {min(len(decisions), ROWS_SHOWN)} of {len(decisions)})": markdown_table(
            ["Subject", "Decision", "Detail"],
            [(one.subject, one.decision, _summarize_detail(one)) for one in decisions[:ROWS_SHOWN]],
        ),
    }
    if isinstance(context, dg.AssetExecutionContext):
        # Not a materialization, because the asset did not change.
        context.log_event(dg.AssetObservation(asset_key=context.asset_key, metadata=metadata))
    else:
        context.add_output_metadata(metadata)
    return {"shadow": True, "decisions": len(decisions), "new": new}


def _summarize_detail(decision: Decision) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in decision.detail.items())
