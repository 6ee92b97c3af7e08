"""Tells people of alerts, once each: what is urgent at once by every channel, the rest in one letter a day.

What is told is written to the outbox and to `ops.outgoing_events` in the transaction that notes that it was.
"""
