"""The client imports nothing heavy into the web applications."""

import json
import subprocess
import sys

import pytest

HEAVY = {"dagster", "pandas", "numpy", "pyarrow", "matplotlib", "boto3", "posthog", "grpc", "fpdf", "xlsxwriter"}
IMPORT = "import json, sys, seedtrust_ops.client; print(json.dumps([*sys.modules]))"


@pytest.mark.usefixtures("child_processes")
def test_client_import_loads_nothing_heavy() -> None:
    output = subprocess.run([sys.executable, "-c", IMPORT], check=True, capture_output=True, text=True).stdout
    loaded = set(json.loads(output))
    assert "seedtrust_ops.client.client" in loaded
    assert HEAVY & {name.partition(".")[0] for name in loaded} == set()
    packages = {".".join(name.split(".")[:2]) for name in loaded if name.startswith("seedtrust_ops.")}
    assert not packages & {f"seedtrust_ops.{part}" for part in ("jobs", "monitoring", "resources", "config", "sandbox")}
