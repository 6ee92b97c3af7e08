"""Mutation testing: deliberate bugs, each in a copy of the product, to prove that the invariants find a real one.

A mutation replaces text in the product's source. If that text is no longer there, the mutation fails with an error,
because it would change nothing and prove nothing.
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
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment

TIMEOUT_SECONDS = 600
TRANSFERS = "seedtrust_ops/domain/transfers"


@dataclass(frozen=True)
class Edit:
    """Source text in one file, and its replacement."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutation:
    """One deliberate bug: its name, and the edits that introduce it."""

    name: str
    edits: tuple[Edit, ...]
    needs_slow_bank: bool = False
    """Whether the bug does harm only if the bank commits late; those cases take longer."""


BASELINE = Mutation("no mutation", (), needs_slow_bank=True)
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
        needs_slow_bank=True,
    ),
    Mutation(
        "no commit before sending",
        (
            Edit(
                f"{TRANSFERS}/sender.py",
                "in self._starts.write(transaction_ids, self._record_attempts) for one in part",
                "in [_rolled_back(self._sessions, lambda session: self._record_attempts(session, transaction_ids))] "
                "for one in part",
            ),
            Edit(
                f"{TRANSFERS}/sender.py",
                "class BatchSender:",
                "def _rolled_back(sessions, work):\n    with sessions() as session:\n        return work(session)\n\n\n"
                "class BatchSender:",
            ),
            # The attempt that should have been recorded before is recorded with the response.
            Edit(
                f"{TRANSFERS}/sender.py",
                "            record_responses(session, self._lease, [by_id[one] for one in transaction_ids])",
                "            self._record_attempts(session, transaction_ids)\n"
                "            record_responses(session, self._lease, [by_id[one] for one in transaction_ids])",
            ),
        ),
    ),
    Mutation(
        "unknown treated as failed",
        (
            Edit(
                f"{TRANSFERS}/attempts.py",
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
                "    if held is None:\n        raise lease_lost_error(lease)\n",
                "",
            ),
            Edit(
                f"{TRANSFERS}/leases.py",
                "        .where(BatchLease.batch_id == lease.batch_id, BatchLease.token == lease.token, is_live())\n"
                "        .values(expires_at",
                "        .where(BatchLease.batch_id == lease.batch_id)\n        .values(expires_at",
            ),
            Edit(
                f"{TRANSFERS}/sending_context.py",
                "return now.monotonic >= self._lease_ends_at.monotonic or now.wall >= self._lease_ends_at.wall",
                "return False",
            ),
        ),
    ),
    Mutation(
        "evidence is not consulted",
        (
            Edit(
                f"{TRANSFERS}/preflight.py",
                "        .where(needs_inquiry(), is_in_flight())\n",
                "        .where(needs_inquiry(), is_in_flight(), HuntingtonTransaction.status != 'failed')\n",
            ),
        ),
    ),
    Mutation(
        "a return always restores an approval",
        (
            Edit(
                f"{TRANSFERS}/ledger_posting.py",
                '.values(status=func.coalesce(before, "approved"), paid_at=None)',
                '.values(status="approved", paid_at=None)',
            ),
        ),
    ),
    Mutation(
        "the feed drops unknown transfers",
        (
            Edit(
                f"{TRANSFERS}/bank_feed.py",
                "        else:\n            matches.unmatched.append(\n"
                "                UnmatchedTransfer("
                "transfer, _describe_problem(transfer, referenced.get(number or 0)))\n"
                "            )\n",
                "",
            ),
        ),
    ),
    Mutation(
        "a case without an active specialist is known to nobody",
        (
            Edit(
                "seedtrust_ops/domain/outbox/recipients.py",
                "dict.fromkeys(case_ids, others)",
                "dict.fromkeys(case_ids, ())",
            ),
            Edit(
                f"{TRANSFERS}/failure_notices.py",
                "    owed = [one for one in current if not people[one.case_id]]\n",
                "    owed = []\n",
            ),
        ),
    ),
    Mutation(
        "ledger posted outside the transaction",
        (
            Edit(
                f"{TRANSFERS}/status_transitions.py",
                '        post_disbursements(session, [change for change in changes if change.after in ("completed", '
                '"returned")])\n'
                '        post_reversals(session, [change for change in changes if change.after == "returned"])\n',
                "        _post_later(session, changes)\n",
            ),
            Edit(
                f"{TRANSFERS}/status_transitions.py",
                "def _set_statuses(",
                "def _post_later(session, changes):\n"
                "    from sqlalchemy import event\n\n"
                "    def post(_committed):\n"
                "        with Session(session.get_bind()) as apart, apart.begin():\n"
                '            paid = [one for one in changes if one.after in ("completed", "returned")]\n'
                "            post_disbursements(apart, paid)\n"
                '            post_reversals(apart, [one for one in changes if one.after == "returned"])\n\n'
                '    event.listen(session, "after_commit", post, once=True)\n\n\n'
                "def _set_statuses(",
            ),
        ),
    ),
)


@dataclass(frozen=True)
class MutationResult:
    """The violations found in a copy, by case; `unreached` are cases whose injection point was not reached."""

    mutation: str
    cases: dict[str, list[str]]
    unreached: list[str]

    @property
    def detected_by(self) -> dict[str, list[str]]:
        """The cases in which violations were found, with those violations."""
        return {case: violations for case, violations in self.cases.items() if violations}


def run_mutation(environment: ChaosEnvironment, mutation: Mutation) -> MutationResult:
    """Apply the mutation to a copy of the product and run the cases on it, in a process that loads only the copy."""
    with TemporaryDirectory(prefix="seedtrust-copy-") as name:
        copy = Path(name)
        for package in (seedtrust_ops, seedtrust_ops_tests):
            source = Path(str(package.__file__)).parent
            shutil.copytree(source, copy / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        for edit in mutation.edits:
            apply_edit(edit, copy)
        command = [sys.executable, "-m", "seedtrust_ops_tests.chaos.mutation_cases"]
        arguments = {
            "server": environment.postgres_server.render_as_string(hide_password=False),
            "template": environment.template,
            "field_key": environment.field_key,
            "folder": str(environment.folder),
            "bank_is_slow": mutation.needs_slow_bank,
        }
        process = subprocess.run(
            command,
            input=json.dumps(arguments),
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    if process.returncode:
        raise AssertionError(f"The cases on the copy with '{mutation.name}' could not run:\n{process.stderr[-4000:]}")
    output = json.loads(process.stdout.splitlines()[-1])
    return MutationResult(mutation.name, output["cases"], output["unreached"])


def apply_edit(edit: Edit, copy: Path) -> None:
    """Apply one edit to the copy; its old text must occur exactly once."""
    (copy / edit.file).write_text(edited_source(edit, copy))


def edited_source(edit: Edit, folder: Path) -> str:
    """Return the file's text with the edit applied.

    Raises:
        AssertionError: if its old text does not occur exactly once.
    """
    source = (folder / edit.file).read_text()
    if source.count(edit.old) != 1:
        raise AssertionError(
            f"The text that the mutation replaces occurs {source.count(edit.old)} times in {edit.file}, but must occur "
            f"once; adapt the mutation to the code:\n{edit.old}"
        )
    return source.replace(edit.old, edit.new)
