"""What storage says: the words that those who keep files and those who carry them to S3 share."""

from seedtrust_ops.errors import OperationsError, PassingTrouble


class StorageRefused(OperationsError):
    """Storage will not do this as it is: there is no such bucket or object, or we are not let in."""


class StorageUnreachable(PassingTrouble):
    """Storage gave no good answer; it may give one in a moment."""
