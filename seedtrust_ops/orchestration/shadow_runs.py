"""Shadow mode for a job's op: its decisions are recorded, and the run says that nothing else was done.

The job factory calls it; a job only names its shadow rule. How decisions are made without side effects is in
`domain/shadow_mode`, and settings say which jobs are in shadow mode.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dagster as dg

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.shadow_mode.decisions import Decision, record_decisions, transaction_start_time
from seedtrust_ops.formatting import pluralize
from seedtrust_ops.orchestration.metadata import ROWS_SHOWN, markdown_table
from seedtrust_ops.tag_names import SHADOW_TAG

OpContext = dg.OpExecutionContext | dg.AssetExecutionContext


@dataclass(frozen=True)
class ShadowRun:
    """A run in shadow mode, as its job's shadow rule sees it.

    `arguments` are those that the op would get besides the context: its config and its resources, by name.
    """

    job: str
    sessions: Sessions
    context: OpContext
    arguments: Mapping[str, Any]


ShadowRule = Callable[[ShadowRun], Sequence[Decision]]
"""Returns what the job would do now, and does none of it."""


def is_in_shadow_mode(job: str) -> bool:
    """Return whether the job only records what it would do (SEEDTRUST_SHADOW, SEEDTRUST_SHADOW_JOBS).

    Raises `ConfigurationError` if a variable is invalid.
    """
    return get_settings().shadow.covers(job)


def run_in_shadow_mode(
    context: OpContext, job: str, decide: ShadowRule, arguments: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Record and show what a job would do now; return the run's result for JobRun, None for an asset.

    Args:
        context: the context of the op or asset.
        job: the name of the job.
        decide: the job's shadow rule.
        arguments: the op's config and resources by name; the decisions are recorded in `database`.
    """
    context.instance.add_run_tags(context.run_id, {SHADOW_TAG: "true"})
    sessions = arguments["database"].sessions()
    with sessions() as session:
        began = transaction_start_time(session)
    decisions = decide(ShadowRun(job, sessions, context, arguments))
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
        return None
    context.add_output_metadata(metadata)
    return {"shadow": True, "decisions": len(decisions), "new": new}


def _summarize_detail(decision: Decision) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in decision.detail.items())
