"""What must hold once nothing is open any more: all is settled or explained, and both books agree to the cent.

An explanation is a bank status, a preflight result, a person's decision (a hold, a halt), or an open alert of a rule
that is about exactly this incident.
"""

from collections.abc import Iterator

from seedtrust_ops_tests.chaos.evidence import FORGOTTEN_RULE, Evidence, Transaction
from seedtrust_ops_tests.chaos.violations import Violation, ViolationKind

REFUSAL_CODES = {"invalid_account", "invalid_amount", "insufficient_funds", "limit_exceeded"}
"""bank_api.yaml, POST /v1/transfers, 422."""
STATUS_FOR_BANK_STATUS = {
    "accepted": "submitted",
    "completed": "completed",
    "rejected": "failed",
    "returned": "returned",
}
AMBIGUOUS_RULE = "transfer_ambiguous"
UNSETTLED_RULES = (AMBIGUOUS_RULE, "idempotency_key_reused", "transfer_undeliverable")
"""Why a transaction may stay 'processing' until a person settles it."""
PAID_TWICE_RULES = ("second_transfer", "request_paid_twice", AMBIGUOUS_RULE)
STATUSES_SET_BY_PEOPLE = {"draft", "held"}
BY_HAND = "set by hand"
"""The failure reason of a transaction that a person has set to failed."""
SETTLED_BY = "settled by "
"""How the failure reason of a transaction that a person has settled begins."""


def check_final_state(evidence: Evidence) -> Iterator[Violation]:
    """Yield a violation for whatever is neither settled nor explained."""
    for one in evidence.transactions.values():
        if one.id in evidence.human.settled_against_bank:
            continue
        if not evidence.human.is_written_by_hand(one.id, one.status):
            yield from _check_status(evidence, one)
        yield from _check_ledger(evidence, one)
        yield from _check_paid_once(evidence, one)
    yield from _check_batches(evidence)


def _check_status(evidence: Evidence, one: Transaction) -> Iterator[Violation]:
    match one.status:
        case "pending":
            is_halted = evidence.is_halted and one.batch_status == "queued"
            if not (one.batch_status in STATUSES_SET_BY_PEOPLE or is_halted or one.id in evidence.human.moved):
                yield Violation(
                    ViolationKind.LOST_PAYMENT,
                    f"Transaction {one.id} is pending in batch {one.batch_id}, which is '{one.batch_status}': it will "
                    "never be sent.",
                )
        case "processing":
            if not (evidence.has_alert(one, *UNSETTLED_RULES) or evidence.bank_lost_transfers):
                yield Violation(
                    ViolationKind.UNEXPLAINED, f"Transaction {one.id} is still 'processing', and no alert says why."
                )
        case "failed":
            yield from _check_failure(evidence, one)
        case _:
            yield from _check_bank_status(evidence, one)


def _check_bank_status(evidence: Evidence, one: Transaction) -> Iterator[Violation]:
    transfer = evidence.transfer_of(one)
    # A settled transfer that lost only its key is still settled; one in progress can no longer be looked up.
    is_lost = transfer is None or (one.status == "submitted" and transfer["idempotency_key"].startswith("forgotten-"))
    if transfer is None or is_lost:
        if not evidence.has_alert(one, FORGOTTEN_RULE, *PAID_TWICE_RULES):
            yield Violation(
                ViolationKind.UNEXPLAINED,
                f"Transaction {one.id} is '{one.status}', but the bank has no transfer for it, and no alert says so.",
            )
    elif STATUS_FOR_BANK_STATUS[transfer["status"]] != one.status:
        if not evidence.has_alert(one, "bank_contradicts_itself", FORGOTTEN_RULE):
            yield Violation(
                ViolationKind.STATUS_MISMATCH,
                f"Transaction {one.id} ended as '{one.status}', but the bank says '{transfer['status']}'.",
            )
    elif one.status == "returned" and one.failure_reason != transfer["return_code"]:
        yield Violation(
            ViolationKind.STATUS_MISMATCH,
            f"Transaction {one.id} was returned with code {transfer['return_code']}, but SeedTrust has "
            f"{one.failure_reason}.",
        )


def _check_failure(evidence: Evidence, one: Transaction) -> Iterator[Violation]:
    reason = one.failure_reason or ""
    transfer = evidence.transfer_of(one)
    refused = any(post["reference"] == str(one.id) and post["status"] == 422 for post in evidence.posts)
    rejected = transfer is not None and transfer["status"] == "rejected"
    is_legacy_timeout = reason.startswith("timeout")
    is_by_hand = reason == BY_HAND or (one.id in evidence.human.settled and reason.startswith(SETTLED_BY))
    if evidence.has_alert(one, AMBIGUOUS_RULE) or ((is_legacy_timeout or is_by_hand) and evidence.bank_lost_transfers):
        return
    if evidence.out_cents(one.id) > 0:
        yield Violation(
            ViolationKind.LOST_PAYMENT, f"Transaction {one.id} is 'failed' ({reason}), but the bank paid it."
        )
    elif not (is_by_hand or reason.startswith("not sent: ") or (reason in REFUSAL_CODES and refused) or rejected):
        yield Violation(
            ViolationKind.UNEXPLAINED,
            f"Transaction {one.id} is 'failed' ({reason}), but neither the bank nor preflight rejected it.",
        )


def _check_ledger(evidence: Evidence, one: Transaction) -> Iterator[Violation]:
    accepted = sum(
        transfer["amount_cents"]
        for transfer in evidence.transfers_of.get(one.id, [])
        if transfer["status"] == "accepted"
    )
    moved = evidence.out_cents(one.id) - accepted
    booked = -sum(entry.amount_cents for entry in evidence.entries_of.get(one.id, []))
    booked -= evidence.corrections.get(one.id, 0)
    if one.status == "processing" and evidence.bank_lost_transfers:
        # It may have been paid and lost by the bank: the person who settles that alert settles this too.
        return
    if moved != booked and not evidence.has_alert(
        one, FORGOTTEN_RULE, "unknown_transfer", "bank_contradicts_itself", *PAID_TWICE_RULES
    ):
        kind = ViolationKind.LOST_PAYMENT if moved > booked else ViolationKind.LEDGER_MISMATCH
        yield Violation(
            kind, f"For transaction {one.id} the bank moved {moved} cents for good, but the ledger has {booked}."
        )


def _check_paid_once(evidence: Evidence, one: Transaction) -> Iterator[Violation]:
    """A payment beside ours (the legacy worker's) is not our error, but an alert must report it."""
    out = [moved["direction"] for moved in evidence.movements_of.get(one.id, [])]
    if out.count("out") - out.count("back") > 1 and not evidence.has_alert(one, *PAID_TWICE_RULES):
        yield Violation(
            ViolationKind.DOUBLE_PAYMENT, f"Transaction {one.id} was paid more than once, and no alert says so."
        )


def _check_batches(evidence: Evidence) -> Iterator[Violation]:
    for batch in evidence.batches:
        statuses = [one.status for one in evidence.transactions.values() if one.batch_id == batch.id]
        succeeded = statuses.count("submitted") + statuses.count("completed")
        expected = "failed" if not succeeded else "completed" if succeeded == len(statuses) else "completed_with_errors"
        waits_for_person = "processing" in statuses or (batch.status == "queued" and evidence.is_halted)
        if batch.is_leased:
            yield Violation(ViolationKind.UNEXPLAINED, f"Batch {batch.id} is still leased to a worker.")
        if batch.status in STATUSES_SET_BY_PEOPLE or waits_for_person or batch.id in evidence.human.batches:
            continue
        if batch.status != expected:
            yield Violation(
                ViolationKind.UNEXPLAINED,
                f"Batch {batch.id} ended as '{batch.status}' with transactions {sorted(statuses)}.",
            )
        elif not batch.is_finished:
            yield Violation(ViolationKind.UNEXPLAINED, f"Batch {batch.id} is '{batch.status}' but has no finish time.")
