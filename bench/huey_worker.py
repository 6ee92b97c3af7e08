"""A Huey worker that makes the same domain call as our job; the task is queued by the code that commits the batch.

BENCH_HUEY is the path of an SQLite file or the URL of a Redis server.
"""

import os
from datetime import UTC, datetime

from huey import RedisHuey, SqliteHuey

from seedtrust_ops.config import get_settings
from seedtrust_ops.database.engine import application_sessions
from seedtrust_ops.domain.transfers.batch_processor import process_batch
from seedtrust_ops.domain.transfers.sending_context import BatchRun, TransferOptions
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.resources.huntington_client import open_huntington_bank

_url = os.environ["BENCH_HUEY"]
huey = RedisHuey(url=_url) if _url.startswith("redis://") else SqliteHuey(filename=_url)


@huey.task()
def send_batch(batch_id: int, concurrency: int) -> None:
    """Send a batch as our job does, with `concurrency` concurrent requests."""
    settings = get_settings().huntington
    options = TransferOptions(
        funding_account_id=settings.funding_account_id,
        concurrency=concurrency,
        lease_seconds=60,
        unknown_grace_seconds=600,
        halted_by_environment=False,
    )
    process_batch(
        application_sessions(),
        lambda: open_huntington_bank(settings.model_copy(update={"concurrency": concurrency})),
        BatchRun(
            batch_id,
            f"huey-{batch_id}",
            datetime.now(UTC),
            FernetFieldCipher(get_settings().field_keys.keys),
            options,
            was_canceled_by_person=lambda _run_id: False,
        ),
    )
