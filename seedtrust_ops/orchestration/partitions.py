"""Which days or weeks a run of a partitioned asset materializes: one, or all of a backfill.

A backfill is one run over a range of partitions, so an asset of this project does each day or week of its run. What it
does for one is in its own file in `jobs`.
See docs/decisions/queue-limits.md.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg

from seedtrust_ops.errors import InputError


class UnknownPartition(InputError):
    """A run was launched for a day or week that the asset does not have."""


def partitions_of_run(
    context: dg.AssetExecutionContext | dg.OpExecutionContext, partitions: dg.PartitionsDefinition[str]
) -> list[str]:
    """Return the keys of the partitions that the run was launched for, in order; none if it was launched without.

    Raises:
        UnknownPartition: if the asset has no such partition.
    """
    if not (context.has_partition_key or context.has_partition_key_range):
        return []
    requested, existing = context.partition_key_range, partitions.get_partition_keys()
    for key in (requested.start, requested.end):
        if key not in existing:
            raise UnknownPartition(
                f"There is no partition {key}: the first is {existing[0]}, the last {existing[-1]}. Nothing was done. "
                "Launch the run for one of these, or for several from the asset's page."
            )
    return list(existing[existing.index(requested.start) : existing.index(requested.end) + 1])


def materialize_each(
    context: dg.AssetExecutionContext,
    keys: Sequence[str],
    materialize: Callable[[str], dg.MaterializeResult[dict[str, Any]]],
) -> dg.MaterializeResult[dict[str, Any]]:
    """Materialize each partition, one after the other; each shows its own metadata.

    Args:
        context: the context of the asset.
        keys: the partitions, at least one; several are those of `partitions_of_run`.
        materialize: makes the result of one partition.

    Returns:
        the result of the only partition, or for several their number, the first and the last.
    """
    if len(keys) == 1:
        return materialize(keys[0])
    for key in keys:
        metadata: Mapping[str, Any] = materialize(key).metadata or {}
        context.add_asset_metadata(metadata, partition_key=key)
    return dg.MaterializeResult(value={"partitions": len(keys), "first": keys[0], "last": keys[-1]})
