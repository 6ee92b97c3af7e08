"""The outbox: emails and events are rows written in the transaction that causes them, and delivered afterwards.

Which emails there are and what they say is in `domain/notifications`.
"""

from seedtrust_ops.domain.outbox.email_store import Attachment, Email, due_letters, enqueue_emails

__all__ = ["Attachment", "Email", "due_letters", "enqueue_emails"]
