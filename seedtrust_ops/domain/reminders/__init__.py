"""Reminder emails: cases to be closed, and accounts below their minimum balance; one per person and occasion.

Each kind is queued by one statement over the current tables, whenever it runs.
"""
