"""Reminders: letters about days that have come and balances that are too low, one a person and occasion.

Each is written by one statement over the tables as they stand, whenever it runs.
"""
