"""`python -m bench [a b c d e f] [--large]`: measures and writes `bench/results.md` with a plot beside it."""

import argparse
import importlib
import sys
import time
import traceback

from bench.figures import Part, say
from bench.machine import described
from bench.results import keep

PARTS = "abcdef"


def main() -> None:
    """Measure the parts that are asked for, one after the other; each is kept as soon as it is measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    # argparse holds the empty list against the choices too.
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--large", action="store_true", help="also 10,000 transactions and 1,000,000 rows")
    arguments = parser.parse_args()
    parts: list[Part] = []
    for letter in arguments.parts or PARTS:
        began = time.monotonic()
        parts.append(_measured(letter, large=arguments.large))
        parts[-1].seconds, parts[-1].ended = time.monotonic() - began, described()
        keep(parts[-1])
        say(f"({letter}) took {parts[-1].seconds:.0f} s")
    for promise in (promise for part in parts for promise in part.promises):
        say(f"{'kept' if promise.kept else 'NOT KEPT'}: {promise.sentence}: {promise.shown}")
    sys.exit(any(part.broke for part in parts))


def _measured(letter: str, *, large: bool) -> Part:
    """Return the part; one that breaks is written down as broken, and takes no other along."""
    module = importlib.import_module(f"bench.part_{letter}")
    try:
        part: Part = module.measure(large)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is written down
        traceback.print_exc()
        part = Part(letter, str(module.__doc__).partition(") ")[2].rstrip("."), "It broke before its end.", broke=True)
        part.left_out.append(f"all of it: {type(error).__name__}: {error}")
    return part


if __name__ == "__main__":
    main()
