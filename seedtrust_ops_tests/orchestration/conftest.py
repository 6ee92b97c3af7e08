"""The environment of the jobs: see `support/job_environment.py`."""

from seedtrust_ops_tests.support.job_environment import (
    case,
    change,
    closed_port,
    impatient,
    jobs_environment,
    outside,
    outside_servers,
    whole_environment,
)

__all__ = [
    "case",
    "change",
    "closed_port",
    "impatient",
    "jobs_environment",
    "outside",
    "outside_servers",
    "whole_environment",
]
