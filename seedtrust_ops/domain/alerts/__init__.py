"""The store of alerts: at most one open row of `ops.alerts` per rule and subject.

Who is notified of an alert, and when, is decided in `domain/alert_notifications`.
"""
