"""Moving money to payees through Huntington: claim, check, send, record, heal.

The promise: every transaction of a queued batch reaches the bank exactly once, and what SeedTrust
believes of it becomes what the bank says of it, whatever dies in between (design, section 4).
"""
