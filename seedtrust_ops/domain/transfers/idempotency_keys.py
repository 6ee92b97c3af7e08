"""What the domain needs of a bank, and the key under which the bank knows a transaction of ours."""

KEY_PREFIX = "seedtrust-transaction-"
_LONGEST_ID = 18


def idempotency_key(transaction_id: int) -> str:
    """Return the transaction's key at the bank: a function of its id alone, so no crash can lose it."""
    return f"{KEY_PREFIX}{transaction_id}"


def transaction_id_of(key: str) -> int | None:
    """Return the transaction that an idempotency key of ours stands for, None for anybody else's key."""
    digits = key.removeprefix(KEY_PREFIX)
    if not digits.isascii() or not digits.isdigit() or len(digits) > _LONGEST_ID:
        return None
    transaction_id = int(digits)
    return transaction_id if idempotency_key(transaction_id) == key else None
