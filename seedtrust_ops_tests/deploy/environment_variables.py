"""The variables that the settings know, and which of them are secrets, for the tests of what deployments are told."""

import importlib
import pkgutil
import re

import seedtrust_ops.config
from seedtrust_ops.config.settings_base import SettingsGroup

SECRET = re.compile(r"KEY$|PASSWORD|DATABASE_URL|POSTGRES_URL|HEARTBEAT_URL")
OF_BOTO3 = {"AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"}
OF_DAGSTER = {"DAGSTER_CLI_API_GRPC_MAX_WORKERS", "DAGSTER_CURRENT_IMAGE"}
HERE = {"DAGSTER_HOME"}
"""What each deployment sets in its own place."""


def known() -> dict[str, bool]:
    """The names of all variables of ours, and whether a job fails that lacks it."""
    for module in pkgutil.iter_modules(seedtrust_ops.config.__path__, "seedtrust_ops.config."):
        importlib.import_module(module.name)
    return {
        str(field.validation_alias): field.is_required()
        for group in SettingsGroup.__subclasses__()
        for field in group.model_fields.values()
    }


def needed() -> set[str]:
    """The names of the variables without which some job fails, and of the databases', which laptops do without."""
    return {name for name, is_needed in known().items() if is_needed} | {
        "SEEDTRUST_DATABASE_URL",
        "DAGSTER_POSTGRES_URL",
    }
