"""Five deliberate breaks of the product, each in a copy of it, to see whether the checker would find a real one.

A break is text that is replaced in the product's source; where that text is no longer there, the break fails loudly,
for then nothing would be broken and nothing shown.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import seedtrust_ops
import seedtrust_ops_tests
from seedtrust_ops_tests.chaos.environment import Ground

PATIENCE_SECONDS = 600
TRANSFERS = "seedtrust_ops/domain/transfers"


@dataclass(frozen=True)
class Edit:
    """A piece of source text in one file, and what is put in its place."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutation:
    """One break of the product: what is wrong with it then, and how it is made."""

    name: str
    edits: tuple[Edit, ...]
    needs_a_late_bank: bool = False
    """Whether only a bank that commits late shows the harm, which takes its time."""


UNBROKEN = Mutation("nothing is broken", (), needs_a_late_bank=True)
MUTATIONS = (
    Mutation(
        "idempotency key per attempt",
        (
            Edit(
                f"{TRANSFERS}/account_numbers.py",
                "idempotency_key=idempotency_key(transaction.id),",
                "idempotency_key=f\"{idempotency_key(transaction.id)}-{__import__('time').time_ns()}\",",
            ),
        ),
        needs_a_late_bank=True,
    ),
    Mutation(
        "no commit before sending",
        (
            Edit(
                f"{TRANSFERS}/sender.py",
                "commit, self._sessions, lambda session: self._put_on_record(session, transaction_ids)",
                "_rolled_back, self._sessions, lambda session: self._put_on_record(session, transaction_ids)",
            ),
            Edit(
                f"{TRANSFERS}/sender.py",
                "class BatchSender:",
                "def _rolled_back(sessions, work):\n    with sessions() as session:\n        return work(session)\n\n\n"
                "class BatchSender:",
            ),
            # What should have been on record before goes there with the answer.
            Edit(
                f"{TRANSFERS}/sender.py",
                "lambda session: record_answers(session, self._lease, answered)",
                "lambda session: (\n"
                "            self._put_on_record(session, [one.attempt.transaction_id for one in answered]),\n"
                "            record_answers(session, self._lease, answered),\n"
                "        )",
            ),
        ),
    ),
    Mutation(
        "unknown treated as failed",
        (
            Edit(
                f"{TRANSFERS}/response_recorder.py",
                "            case OutcomeUnknown():\n                pass\n",
                '            case OutcomeUnknown():\n                refused[transaction_id] = "no_answer"\n',
            ),
        ),
    ),
    Mutation(
        "no fencing",
        (
            Edit(
                f"{TRANSFERS}/leases.py",
                "    if held is None:\n        raise lease_lost(lease)\n",
                "",
            ),
            Edit(
                f"{TRANSFERS}/leases.py",
                "        .where(BatchLease.batch_id == lease.batch_id, BatchLease.token == lease.token, is_live())\n"
                "        .values(expires_at",
                "        .where(BatchLease.batch_id == lease.batch_id)\n        .values(expires_at",
            ),
            Edit(
                f"{TRANSFERS}/send_cancellation.py",
                "return now.steady >= self._lease_ends_at.steady or now.wall >= self._lease_ends_at.wall",
                "return False",
            ),
        ),
    ),
    Mutation(
        "ledger posted outside the transaction",
        (
            Edit(
                f"{TRANSFERS}/status_transitions.py",
                '        book_disbursements(session, [change for change in changes if change.after in ("completed", '
                '"returned")])\n'
                '        book_returns(session, [change for change in changes if change.after == "returned"])\n',
                "        _book_later(session, changes)\n",
            ),
            Edit(
                f"{TRANSFERS}/status_transitions.py",
                "def _set_statuses(",
                "def _book_later(session, changes):\n"
                "    from sqlalchemy import event\n\n"
                "    def book(_committed):\n"
                "        with Session(session.get_bind()) as apart, apart.begin():\n"
                '            paid = [one for one in changes if one.after in ("completed", "returned")]\n'
                "            book_disbursements(apart, paid)\n"
                '            book_returns(apart, [one for one in changes if one.after == "returned"])\n\n'
                '    event.listen(session, "after_commit", book, once=True)\n\n\n'
                "def _set_statuses(",
            ),
        ),
    ),
)


@dataclass(frozen=True)
class Verdict:
    """What the checker found in a copy, by case; `missed` are the cases whose moment never came."""

    mutation: str
    cases: dict[str, list[str]]
    missed: list[str]

    @property
    def caught_by(self) -> dict[str, list[str]]:
        """The cases in which it found something."""
        return {case: found for case, found in self.cases.items() if found}


def judge_copy(ground: Ground, mutation: Mutation) -> Verdict:
    """Break a copy of the product and run the cases on it, in a process that loads that copy and nothing else."""
    with TemporaryDirectory(prefix="seedtrust-copy-") as name:
        copy = Path(name)
        for package in (seedtrust_ops, seedtrust_ops_tests):
            source = Path(str(package.__file__)).parent
            shutil.copytree(source, copy / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        for edit in mutation.edits:
            apply(edit, copy)
        command = [sys.executable, "-m", "seedtrust_ops_tests.chaos.mutant_cases"]
        arguments = {
            "server": ground.postgres_server.render_as_string(hide_password=False),
            "template": ground.template,
            "field_key": ground.field_key,
            "folder": str(ground.folder),
            "bank_is_late": mutation.needs_a_late_bank,
        }
        ended = subprocess.run(
            command,
            input=json.dumps(arguments),
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    if ended.returncode:
        raise AssertionError(f"The copy in which {mutation.name} could not be judged:\n{ended.stderr[-4000:]}")
    told = json.loads(ended.stdout.splitlines()[-1])
    return Verdict(mutation.name, told["cases"], told["missed"])


def apply(edit: Edit, copy: Path) -> None:
    """Make one edit; its text must be there exactly once."""
    file = copy / edit.file
    source = file.read_text()
    if source.count(edit.old) != 1:
        raise AssertionError(
            f"The text that the mutation check replaces is there {source.count(edit.old)} times in {edit.file}, and "
            f"must be there once; adapt the mutation to the code:\n{edit.old}"
        )
    file.write_text(source.replace(edit.old, edit.new))
