"""A contract for import-linter: only one module imports private names of these packages.

import-linter's own contracts know an external package only as a whole; this one reads the import statements.
"""

import re
from collections.abc import Iterator
from typing import Any

from importlinter import Contract, ContractCheck, fields, output


class PrivateNamesContract(Contract):
    """Forbids import statements that match `pattern` everywhere but in `allowed_module`."""

    type_name = "private_names"

    packages: Any = fields.ListField(subfield=fields.StringField())
    pattern: Any = fields.StringField()
    allowed_module: Any = fields.StringField()

    def check(self, graph: Any, verbose: bool) -> ContractCheck:
        violations = [violation for package in self.packages for violation in self._violations(graph, package)]
        return ContractCheck(kept=not violations, metadata={"violations": violations})

    def _violations(self, graph: Any, package: str) -> Iterator[str]:
        if package not in graph.modules:
            return
        for importer in graph.find_modules_that_directly_import(package):
            for statement in graph.get_import_details(importer=importer, imported=package):
                if importer != self.allowed_module and re.match(self.pattern, statement["line_contents"]):
                    yield f"{importer}, line {statement['line_number']}: {statement['line_contents']}"

    def render_broken_contract(self, check: ContractCheck) -> None:
        for violation in sorted(check.metadata["violations"]):
            output.print_error(violation)
        output.print_error(f"Import the name from {self.allowed_module}, and declare there what it is for.")
