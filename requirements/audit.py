"""Compares the pinned versions with known vulnerabilities: `make audit`.

pip-audit reports "no known vulnerabilities" also if the index that it asks serves none, as mirrors do. So it is asked
about a version with a known vulnerability first, and without that answer nothing counts as checked. It exits with 1
only if a pinned version is vulnerable.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
VULNERABLE = "requests==2.19.0"
"""It sends a password on to another server (CVE-2018-18074)."""
OPTIONS = ("--format=json", "--progress-spinner=off", "--disable-pip")


def main() -> int:
    """Print what was found; return the exit status."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(f"{VULNERABLE}\n")
        file.flush()
        known = run_pip_audit("--no-deps", "--requirement", file.name)
    if known is None or not any(package.get("vulns") for package in known):
        print(
            "NOT CHECKED: no advisories are available here. Their server cannot be reached, or the package index in\n"
            "use serves none. No pinned version was compared with any. Run `make audit` where the network allows it."
        )
        return 0
    files = [argument for file in sorted(FOLDER.glob("*.txt")) for argument in ("--requirement", str(file))]
    packages = run_pip_audit("--require-hashes", *files)
    if packages is None:
        print("NOT CHECKED: pip-audit did not finish.")
        return 0
    vulnerable = [
        f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in "
        f"{', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for package in packages
        for vulnerability in package.get("vulns", ())
    ]
    skipped = [
        f"{package['name']}: not checked, {package['skip_reason']}" for package in packages if "skip_reason" in package
    ]
    print("\n".join([*vulnerable, *skipped, ""]), end="")
    print(f"{len(packages) - len(skipped)} packages checked, {len(vulnerable)} known vulnerabilities.")
    return 1 if vulnerable else 0


def run_pip_audit(*arguments: str) -> list[dict[str, Any]] | None:
    """Return what pip-audit says of each package; if it does not finish, print its last words and return None."""
    command = [sys.executable, "-m", "pip_audit", *OPTIONS, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        dependencies: list[dict[str, Any]] = json.loads(result.stdout)["dependencies"]
    except json.JSONDecodeError:
        print("\n".join(result.stderr.splitlines()[-1:]), file=sys.stderr)
        return None
    return dependencies


if __name__ == "__main__":
    sys.exit(main())
