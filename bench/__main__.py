"""`python -m bench [a b c d e f] [--large]`: measures and writes `bench/results.md` with a plot beside it."""

import argparse
import importlib

from bench.results import write

PARTS = "abcdef"


def main() -> None:
    """Measure the parts that are asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=[*PARTS, []])
    parser.add_argument("--large", action="store_true", help="also 10,000 transactions and 1,000,000 rows")
    arguments = parser.parse_args()
    parts = []
    for letter in arguments.parts:
        parts.append(importlib.import_module(f"bench.part_{letter}").measure(arguments.large))
        write(parts, all_of=PARTS)


if __name__ == "__main__":
    main()
