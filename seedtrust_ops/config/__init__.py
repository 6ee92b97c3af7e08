"""The environment, read once into frozen, typed settings; no other package reads `os.environ`.

`settings` holds the whole; every other module here is one group of variables that are needed together.
"""

from seedtrust_ops.config.settings import (
    Environment,
    FieldKeySettings,
    HuntingtonSettings,
    LocationSettings,
    TransferSettings,
    dagster_home,
    environment_for_child,
    get_settings,
    replace_environment,
)

__all__ = [
    "Environment",
    "FieldKeySettings",
    "HuntingtonSettings",
    "LocationSettings",
    "TransferSettings",
    "dagster_home",
    "environment_for_child",
    "get_settings",
    "replace_environment",
]
