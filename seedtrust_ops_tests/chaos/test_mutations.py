"""The checker finds what it should: each deliberate break of the product is caught, and the product as it is passes."""

from pathlib import Path

import pytest

from seedtrust_ops_tests.chaos.environment import Ground
from seedtrust_ops_tests.chaos.mutations import MUTATIONS, UNBROKEN, Edit, Mutation, apply, judge_copy

pytestmark = [pytest.mark.timeout(900), pytest.mark.long_chaos]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_checker_catches_a_product_that_is_broken_on_purpose(ground: Ground, mutation: Mutation) -> None:
    assert judge_copy(ground, mutation).caught_by != {}


def test_checker_finds_nothing_in_a_copy_that_is_not_broken(ground: Ground) -> None:
    verdict = judge_copy(ground, UNBROKEN)
    assert verdict.caught_by == {}
    assert verdict.cases != {}


def test_mutation_fails_loudly_when_the_code_that_it_breaks_has_changed(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("as_it_is = now\n")
    with pytest.raises(AssertionError, match="adapt the mutation"):
        apply(Edit("code.py", "as_it_was", "broken"), tmp_path)
