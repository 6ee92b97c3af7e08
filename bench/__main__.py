"""`python -m bench [a b c d e f] [--large]`: runs the benchmark and writes `bench/results.md` with a chart."""

import argparse
import importlib
import sys
import time
import traceback

from bench.machine import describe_machine
from bench.measurements import Part, log_line
from bench.results import save_part

PARTS = {
    "a": "batch_latency",
    "b": "batch_throughput",
    "c": "run_cost",
    "d": "idle_cost",
    "e": "bulk_work",
    "f": "job_run_catch_up",
}
"""The module that measures each part."""


def main() -> None:
    """Measure the requested parts one after the other; each is saved as soon as it is measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    # argparse also checks the empty default list against the choices.
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--large", action="store_true", help="also 10,000 transactions and 1,000,000 rows")
    arguments = parser.parse_args()
    parts: list[Part] = []
    for key in arguments.parts or PARTS:
        began = time.monotonic()
        parts.append(_measure(key, large=arguments.large))
        parts[-1].seconds, parts[-1].conditions = time.monotonic() - began, describe_machine()
        save_part(parts[-1])
        log_line(f"({key}) took {parts[-1].seconds:.0f} s")
    for target in (target for part in parts for target in part.targets):
        log_line(f"{'met' if target.is_met else 'NOT MET'}: {target.description}: {target.measured}")
    sys.exit(any(part.failed for part in parts))


def _measure(key: str, *, large: bool) -> Part:
    """Return the part; if it fails, return it marked as failed, so that the other parts still run."""
    module = importlib.import_module(f"bench.{PARTS[key]}")
    try:
        part: Part = module.measure(large)
    except Exception as error:  # noqa: BLE001 - any error is written into the results
        traceback.print_exc()
        part = Part(key, str(module.__doc__).partition(": ")[2].rstrip("."), "This part failed.", failed=True)
        part.skipped.append(f"the whole part, because of {type(error).__name__}: {error}")
    return part


if __name__ == "__main__":
    main()
