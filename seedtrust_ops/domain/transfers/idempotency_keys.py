"""The idempotency key that identifies one of our transactions at the bank: building and parsing it.

See docs/decisions/idempotency-key.md.
"""

KEY_PREFIX = "seedtrust-transaction-"
_MAX_ID_DIGITS = 18


def idempotency_key(transaction_id: int) -> str:
    """Return the transaction's idempotency key. It depends on the id alone, so no crash can lose it."""
    return f"{KEY_PREFIX}{transaction_id}"


def parse_idempotency_key(key: str) -> int | None:
    """Return the transaction id that one of our idempotency keys stands for, or None if the key is not ours."""
    digits = key.removeprefix(KEY_PREFIX)
    if not digits.isascii() or not digits.isdigit() or len(digits) > _MAX_ID_DIGITS:
        return None
    transaction_id = int(digits)
    return transaction_id if idempotency_key(transaction_id) == key else None
