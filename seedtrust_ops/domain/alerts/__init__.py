"""The alert store, `ops.alerts`. Who is notified of an alert, and when, is decided in `domain/alert_notifications`."""
