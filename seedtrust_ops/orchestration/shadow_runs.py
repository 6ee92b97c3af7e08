"""How a job's op behaves in shadow: it looks, its decisions are recorded, and the run says that nothing was done.

What is decided, and how nothing of it is kept, is in `domain/shadow/`; which jobs are in shadow, the environment says.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import dagster as dg

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.shadow_mode.decisions import Decision, now, record_decisions
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.orchestration.metadata import ROWS_SHOWN, markdown_table
from seedtrust_ops.orchestration.user_facing_failures import user_facing_failures

SHADOW_TAG = "seedtrust/shadow"
Look = Callable[[Sessions, str], Sequence[Decision]]


def in_shadow(job: str) -> bool:
    """Return whether the job only records what it would have done (SEEDTRUST_SHADOW, SEEDTRUST_SHADOW_JOBS)."""
    with user_facing_failures():
        return get_settings().shadow.covers(job)


def run_in_shadow(
    context: dg.OpExecutionContext | dg.AssetExecutionContext, job: str, database: DatabaseResource, look: Look
) -> dict[str, Any]:
    """Let a job look in shadow, record its decisions, and show them; return what JobRun keeps of the run.

    Args:
        context: the op's.
        job: its job's name.
        database: where decisions are recorded, and nothing else is.
        look: given sessions and the job's name, returns what the job would do now.
    """
    context.instance.add_run_tags(context.run_id, {SHADOW_TAG: "true"})
    with user_facing_failures():
        sessions = database.sessions()
        with sessions() as session:
            began = now(session)
        decisions = look(sessions, job)
        new = run_in_transaction(sessions, partial(record_decisions, job=job, decisions=decisions, began=began))
    counts = Counter(one.decision for one in decisions)
    context.log.info(f"In shadow: {len(decisions)} decisions were recorded, {new} of them new; nothing else was done.")
    metadata = {
        "in shadow": dg.MetadataValue.text("Nothing was done: these are decisions. `seedtrust-ops shadow compare`"),
        "decisions": markdown_table(["would", "how often"], sorted(counts.items())),
        f"decisions (first {min(len(decisions), ROWS_SHOWN)} of {len(decisions)})": markdown_table(
            ["what", "would", "details"],
            [(one.subject, one.decision, _in_words(one)) for one in decisions[:ROWS_SHOWN]],
        ),
    }
    if isinstance(context, dg.AssetExecutionContext):
        # No materialization: the asset is what it was before.
        context.log_event(dg.AssetObservation(asset_key=context.asset_key, metadata=metadata))
    else:
        context.add_output_metadata(metadata)
    return {"shadow": True, "decisions": len(decisions), "new": new}


def _in_words(decision: Decision) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in decision.detail.items())
