"""The outbox: emails and events are rows written in the transaction that causes them, and delivered afterwards.

Which emails there are and what they say is in `domain/notifications`.
"""

from seedtrust_ops.domain.outbox.email_store import Attachment, Letter, due_letters, queue_letters

__all__ = ["Attachment", "Letter", "due_letters", "queue_letters"]
