"""Reminder emails: cases to be closed, and accounts below their minimum balance; one per person and occasion.

Each rule is one query over the current tables, whenever it runs; the job enqueues the emails that it returns.
"""
