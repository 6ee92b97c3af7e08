"""What the checker asks once nothing is open any more: all is settled or explained, and the books agree to the cent.

An explanation is the bank's word, the check's word, a person's decision (a hold, a halt), or an open alert of a
rule that speaks of just that trouble.
"""

from collections.abc import Iterator

from seedtrust_ops_tests.chaos.evidence import FORGOTTEN, Evidence, Transaction
from seedtrust_ops_tests.chaos.violations import Kind, Violation

REFUSAL_CODES = {"invalid_account", "invalid_amount", "insufficient_funds", "limit_exceeded"}
"""bank_api.yaml, POST /v1/transfers, 422."""
BECOMES = {"accepted": "submitted", "completed": "completed", "rejected": "failed", "returned": "returned"}
AMBIGUOUS = "transfer_ambiguous"
PAID_BY_OTHERS_TOO = ("second_transfer", "request_paid_twice", AMBIGUOUS)
KEPT_BY_PEOPLE = {"draft", "held"}


def find_unrest(evidence: Evidence) -> Iterator[Violation]:
    """Yield whatever is neither settled nor explained."""
    for one in evidence.transactions.values():
        yield from _not_at_rest(evidence, one)
        yield from _not_booked_as_the_bank_moved_it(evidence, one)
        yield from _paid_by_others_too(evidence, one)
    yield from _batches_not_at_rest(evidence)


def _not_at_rest(evidence: Evidence, one: Transaction) -> Iterator[Violation]:
    match one.status:
        case "pending":
            if not (one.batch_status in KEPT_BY_PEOPLE or (evidence.is_halted and one.batch_status == "queued")):
                yield Violation(
                    Kind.LOST_PAYMENT,
                    f"Transaction {one.id} is pending in batch {one.batch_id}, which is '{one.batch_status}': nobody "
                    "will send it.",
                )
        case "processing":
            if not (evidence.tells(one, AMBIGUOUS, "idempotency_key_reused") or evidence.tells_of_a_forgetful_bank):
                yield Violation(Kind.UNEXPLAINED, f"Transaction {one.id} rests in 'processing', and no alert says why.")
        case "failed":
            yield from _not_a_real_failure(evidence, one)
        case _:
            yield from _not_as_the_bank_has_it(evidence, one)


def _not_as_the_bank_has_it(evidence: Evidence, one: Transaction) -> Iterator[Violation]:
    transfer = evidence.transfer_of(one)
    # A settled transfer whose key alone is lost is settled all the same; one under way can't be asked about any more.
    is_lost = transfer is None or (one.status == "submitted" and transfer["idempotency_key"].startswith("forgotten-"))
    if transfer is None or is_lost:
        if not evidence.tells(one, FORGOTTEN, *PAID_BY_OTHERS_TOO):
            yield Violation(
                Kind.UNEXPLAINED,
                f"Transaction {one.id} is '{one.status}', the bank knows no transfer of it, and no alert tells.",
            )
    elif BECOMES[transfer["status"]] != one.status:
        if not evidence.tells(one, "bank_contradicts_itself", FORGOTTEN):
            yield Violation(
                Kind.NOT_THE_BANKS_WORD,
                f"Transaction {one.id} rests as '{one.status}', and the bank says '{transfer['status']}'.",
            )
    elif one.status == "returned" and one.failure_reason != transfer["return_code"]:
        yield Violation(
            Kind.NOT_THE_BANKS_WORD,
            f"Transaction {one.id} came back with {transfer['return_code']}, and SeedTrust says {one.failure_reason}.",
        )


def _not_a_real_failure(evidence: Evidence, one: Transaction) -> Iterator[Violation]:
    reason = one.failure_reason or ""
    transfer = evidence.transfer_of(one)
    refused = any(post["reference"] == str(one.id) and post["status"] == 422 for post in evidence.posts)
    rejected = transfer is not None and transfer["status"] == "rejected"
    if evidence.tells(one, AMBIGUOUS) or (reason.startswith("timeout") and evidence.tells_of_a_forgetful_bank):
        return
    if evidence.out_cents(one.id) > 0:
        yield Violation(
            Kind.LOST_PAYMENT, f"Transaction {one.id} is 'failed' ({reason}), and the bank paid it all the same."
        )
    elif not (reason.startswith("not sent: ") or (reason in REFUSAL_CODES and refused) or rejected):
        yield Violation(
            Kind.UNEXPLAINED,
            f"Transaction {one.id} is 'failed' ({reason}), which is neither the bank's word nor the check's.",
        )


def _not_booked_as_the_bank_moved_it(evidence: Evidence, one: Transaction) -> Iterator[Violation]:
    accepted = sum(
        transfer["amount_cents"]
        for transfer in evidence.transfers_of.get(one.id, [])
        if transfer["status"] == "accepted"
    )
    moved = evidence.out_cents(one.id) - accepted
    booked = -sum(entry.amount_cents for entry in evidence.entries_of.get(one.id, []))
    if one.status == "processing" and evidence.tells_of_a_forgetful_bank:
        # Paid, perhaps, and forgotten: whoever settles that alert settles this.
        return
    if moved != booked and not evidence.tells(one, FORGOTTEN, "transfer_not_booked", *PAID_BY_OTHERS_TOO):
        kind = Kind.LOST_PAYMENT if moved > booked else Kind.BOOKS_DIFFER
        yield Violation(
            kind, f"For transaction {one.id} the bank moved {moved} cents for good, and the ledger has {booked}."
        )


def _paid_by_others_too(evidence: Evidence, one: Transaction) -> Iterator[Violation]:
    """A payment beside ours (the legacy worker's) is no fault of ours, but somebody must have been told."""
    out = [moved["direction"] for moved in evidence.movements_of.get(one.id, [])]
    if out.count("out") - out.count("back") > 1 and not evidence.tells(one, *PAID_BY_OTHERS_TOO):
        yield Violation(Kind.DOUBLE_PAYMENT, f"Transaction {one.id} was paid more than once, and no alert tells.")


def _batches_not_at_rest(evidence: Evidence) -> Iterator[Violation]:
    for batch in evidence.batches:
        inside = [one for one in evidence.transactions.values() if one.batch_id == batch.id]
        statuses = [one.status for one in inside]
        went_through = statuses.count("submitted") + statuses.count("completed")
        expected = (
            "failed" if not went_through else "completed" if went_through == len(statuses) else "completed_with_errors"
        )
        waits_for_people = "processing" in statuses or (batch.status == "queued" and evidence.is_halted)
        if batch.is_held:
            yield Violation(Kind.UNEXPLAINED, f"Batch {batch.id} is still held by a worker's lease.")
        if batch.status in KEPT_BY_PEOPLE or waits_for_people:
            continue
        if batch.status != expected:
            yield Violation(Kind.UNEXPLAINED, f"Batch {batch.id} rests as '{batch.status}' with {sorted(statuses)}.")
        elif not batch.is_finished:
            yield Violation(Kind.UNEXPLAINED, f"Batch {batch.id} is '{batch.status}' without having been finished.")
