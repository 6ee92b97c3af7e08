"""What every group of cases must come to, wherever it is run as a test."""

from seedtrust_ops_tests.chaos.shards import Group

MOST_MISSED = 0.25
"""A busy machine may take another way through the batch, on which some moment does not come; most must have come."""


def must_be_clean(group: Group) -> None:
    """Fail where the checker found anything, or where too few of the moments came."""
    assert group.findings == {}
    assert len(group.missed) <= MOST_MISSED * (len(group.outcomes) + len(group.missed)), group.missed
