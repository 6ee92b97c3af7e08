"""A Huey worker for the same work: the same domain call, queued where the batch is committed.

BENCH_HUEY is the path of an SQLite file, or the address of a Redis server.
"""

import os
from datetime import UTC, datetime

from huey import RedisHuey, SqliteHuey

from seedtrust_ops.config import get_settings
from seedtrust_ops.database.engine import application_sessions
from seedtrust_ops.domain.transfers.batch_processor import TransferRules, process_batch
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.resources.huntington_client import open_huntington_bank

_where = os.environ["BENCH_HUEY"]
huey = RedisHuey(url=_where) if _where.startswith("redis://") else SqliteHuey(filename=_where)


@huey.task()
def send_batch(batch_id: int, concurrency: int) -> None:
    """Send a batch as our job does, with `concurrency` requests at once."""
    settings = get_settings().huntington
    rules = TransferRules(
        funding_account_id=settings.funding_account_id,
        concurrency=concurrency,
        lease_seconds=60,
        unknown_grace_seconds=600,
        halted_by_environment=False,
    )
    process_batch(
        application_sessions(),
        lambda: open_huntington_bank(settings.model_copy(update={"concurrency": concurrency})),
        FernetFieldCipher(get_settings().field_keys.keys),
        rules,
        batch_id=batch_id,
        holder=f"huey-{batch_id}",
        asked_at=datetime.now(UTC),
    )
