"""Sends money to payees through Huntington: claim, preflight, send, record, auto-heal.

The promise: every transaction of a queued batch reaches the bank exactly once, and its recorded status becomes the
bank's status, regardless of crashes in between (docs/rules.md, section 4).
"""
