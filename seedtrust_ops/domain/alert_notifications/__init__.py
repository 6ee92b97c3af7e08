"""Notifies people of alerts, once each: CRITICAL and HIGH at once on every channel, the rest in a daily digest email.

Each notification is queued in the outbox in the same transaction that marks its alert as notified.
"""
