"""Letters: an outbox that is written in the transaction that causes a letter, and delivered afterwards.

`kinds` says which letters there are and what variables each needs; `delivery` sends what is due.
"""

from seedtrust_ops.domain.notifications.outbox import Attachment, Letter, due_letters, queue_letters

__all__ = ["Attachment", "Letter", "due_letters", "queue_letters"]
