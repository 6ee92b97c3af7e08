"""The invariants detect real bugs: each mutation of the product is caught, and the unchanged product passes."""

from pathlib import Path

import pytest

from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.mutations import (
    BASELINE,
    MUTATIONS,
    Edit,
    Mutation,
    apply_edit,
    edited_source,
    run_mutation,
)
from seedtrust_ops_tests.support.tiers import long_version

pytestmark = pytest.mark.timeout(900)
ATTEMPTS = 3
CHECKOUT = Path(__file__).parents[2]
BY_HAND = "chaos/test_invariants.py::test_violation_is_detected"


@long_version(of=BY_HAND)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_mutation_is_detected(environment: ChaosEnvironment, mutation: Mutation) -> None:
    # One detection is enough. A frozen worker that resumes over five seconds late reads its rows again, which hides a
    # bug in fencing, and a busy machine can make it late.
    assert any(run_mutation(environment, mutation).detected_by for _ in range(ATTEMPTS))


@long_version(of=BY_HAND)
def test_unchanged_product_has_no_violations(environment: ChaosEnvironment) -> None:
    result = run_mutation(environment, BASELINE)
    assert result.detected_by == {}
    assert result.cases != {}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_mutation_fits_the_code(mutation: Mutation) -> None:
    for edit in mutation.edits:
        assert edited_source(edit, CHECKOUT) != (CHECKOUT / edit.file).read_text()


def test_mutation_of_changed_code_fails_with_an_error(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("as_it_is = now\n")
    with pytest.raises(AssertionError, match="adapt the mutation"):
        apply_edit(Edit("code.py", "as_it_was", "broken"), tmp_path)
