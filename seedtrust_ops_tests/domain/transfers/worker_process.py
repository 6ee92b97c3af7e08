"""A transfer worker in its own process, so that tests can kill it: `python -m ... BATCH_ID HOLDER`.

It does the same as the job's op, with the same environment variables, but without Dagster's start-up time.
"""

import sys
from datetime import UTC, datetime

from seedtrust_ops.config import get_settings
from seedtrust_ops.database.engine import application_sessions
from seedtrust_ops.domain.transfers.batch_processor import process_batch
from seedtrust_ops.domain.transfers.sending_context import BatchRun, TransferOptions
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.resources.huntington_client import open_huntington_bank


def main() -> None:
    settings = get_settings().huntington
    transfers = get_settings().transfers
    run = BatchRun(
        batch_id=int(sys.argv[1]),
        holder=sys.argv[2],
        requested_at=datetime.now(UTC),
        cipher=FernetFieldCipher(get_settings().field_keys.keys),
        options=TransferOptions(
            funding_account_id=settings.funding_account_id,
            concurrency=settings.concurrency,
            lease_seconds=transfers.lease_seconds,
            unknown_grace_seconds=transfers.unknown_grace_seconds,
            halted_by_environment=transfers.halted,
        ),
        was_canceled_by_person=lambda _run_id: False,
    )
    report = process_batch(application_sessions(), lambda: open_huntington_bank(settings), run)
    sys.stdout.write(f"{report.held_by or report.status}\n")


if __name__ == "__main__":
    main()
