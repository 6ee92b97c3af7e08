"""The assertion that every test of a scenario ends with."""

from seedtrust_ops_tests.chaos.shards import ScenarioResult

MAX_UNREACHED_SHARE = 0.25
"""On a busy machine a run may take other steps and miss some injection points; most of them must be reached."""


def assert_clean(result: ScenarioResult) -> None:
    """Fail if any case has a violation, or if too few injection points were reached."""
    assert result.findings == {}
    assert len(result.unreached) <= MAX_UNREACHED_SHARE * (len(result.cases) + len(result.unreached)), result.unreached
