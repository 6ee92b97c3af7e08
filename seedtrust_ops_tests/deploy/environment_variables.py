"""The variables that the settings define, and which are secrets, for the tests of the deployment files."""

import importlib
import pkgutil
import re
from pathlib import Path

from pydantic.fields import FieldInfo

import seedtrust_ops.config
from seedtrust_ops.config.settings_base import SettingsGroup

ROOT = Path(seedtrust_ops.__file__).parents[1]
SECRET = re.compile(r"KEY$|PASSWORD|DATABASE_URL|POSTGRES_URL|HEARTBEAT_URL|ALERT_URLS")
BOTO3_VARIABLES = {"AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"}
DAGSTER_VARIABLES = {"DAGSTER_CLI_API_GRPC_MAX_WORKERS", "DAGSTER_CURRENT_IMAGE"}
SET_PER_DEPLOYMENT = {"DAGSTER_HOME"}
"""Each deployment sets this elsewhere, not in its list of variables."""


def _fields() -> dict[str, FieldInfo]:
    for module in pkgutil.iter_modules(seedtrust_ops.config.__path__, "seedtrust_ops.config."):
        importlib.import_module(module.name)
    return {
        str(field.validation_alias): field
        for group in SettingsGroup.__subclasses__()
        for field in group.model_fields.values()
    }


def setting_variables() -> dict[str, bool]:
    """Return every variable of our settings, and whether a job fails without it."""
    return {name: field.is_required() for name, field in _fields().items()}


def numeric_defaults() -> dict[str, float]:
    """Return the default of every variable that is a number or a switch; a switch counts as 0 or 1."""
    return {name: float(field.default) for name, field in _fields().items() if isinstance(field.default, int | float)}


def required_variables() -> set[str]:
    """Return the variables without which some job fails, and the database URLs, which only laptops can omit."""
    return {name for name, is_required in setting_variables().items() if is_required} | {
        "SEEDTRUST_DATABASE_URL",
        "DAGSTER_POSTGRES_URL",
    }


def secrets_by_component() -> dict[str, set[str]]:
    """Return the secrets that each component gets, as docs/configuration.md says."""
    lines = (ROOT / "docs" / "configuration.md").read_text().splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith("| Secret | ")]
    components = [cell.strip() for cell in lines[start].strip("|").split("|")][1:]
    found: dict[str, set[str]] = {component: set() for component in components}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        for component, cell in zip(components, cells, strict=True):
            if cell == "yes":
                found[component].add(name.strip("`"))
    return found
