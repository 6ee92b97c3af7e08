"""The outbox: emails and events are rows written in the transaction that causes them, and sent afterwards.

Which kinds of emails exist and what they say is in `domain/notifications`.
"""

from seedtrust_ops.domain.outbox.store import Attachment, Email, count_due_emails, enqueue_emails

__all__ = ["Attachment", "Email", "count_due_emails", "enqueue_emails"]
