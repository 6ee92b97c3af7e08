"""The content of emails: their kinds, their templates and the renderer. Sending them is in `domain/outbox`."""

from seedtrust_ops.domain.notifications import notification_kinds as notification_kinds
from seedtrust_ops.domain.notifications.kind_registry import Column, NotificationKind, TableEmailKind, Urgency

__all__ = ["Column", "NotificationKind", "TableEmailKind", "Urgency"]
