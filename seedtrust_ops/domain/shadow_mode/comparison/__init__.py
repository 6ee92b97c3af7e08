"""Compares what jobs in shadow mode decided with what the legacy systems did in the same period, one file per subject.

The legacy systems' actions are read from the platform's columns; emails, which leave no trace there, from the mail
provider's log.
"""
