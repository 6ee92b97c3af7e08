"""The health rules: read-only queries that return findings, one module per subject.

`evaluator` turns findings into alerts; who is notified of those is decided in `domain/alert_notifications`.
"""
