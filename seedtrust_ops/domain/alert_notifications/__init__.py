"""Notifies people of alerts: CRITICAL and HIGH at once on every channel, the rest in a daily digest email.

Each channel has its own state (`domain/alerts/channel_state`): what it has not delivered, it still owes. A notification
is queued in the outbox under a key that is queued only once, and recorded when the outbox has delivered it.
"""
