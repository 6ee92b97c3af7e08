"""Alerts, `ops.alerts`, and which channel has notified people of them, `ops.alert_notifications`.

Who is notified of an alert, and when, is decided in `domain/alert_notifications`.
"""
