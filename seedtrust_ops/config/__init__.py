"""Environment variables, read once into frozen, typed settings; no other package reads `os.environ`.

`settings` combines all groups. Each other module holds groups of variables that belong together.
"""

from seedtrust_ops.config.external_services import HuntingtonSettings
from seedtrust_ops.config.settings import (
    FieldKeySettings,
    LocationSettings,
    Settings,
    TransferSettings,
    dagster_home,
    environment_for_child,
    get_settings,
    ignore_running_sandbox,
    overridden_variables,
    replace_environment,
)

__all__ = [
    "FieldKeySettings",
    "HuntingtonSettings",
    "LocationSettings",
    "Settings",
    "TransferSettings",
    "dagster_home",
    "environment_for_child",
    "get_settings",
    "ignore_running_sandbox",
    "overridden_variables",
    "replace_environment",
]
