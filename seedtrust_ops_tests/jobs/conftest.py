"""The environment of the jobs: see `support/job_environment.py`."""

from seedtrust_ops_tests.support.job_environment import (
    case,
    closed_port,
    external_services,
    full_environment,
    jobs_environment,
    no_retry_delays,
    set_variables,
    shared_external_services,
)

__all__ = [
    "case",
    "closed_port",
    "external_services",
    "full_environment",
    "jobs_environment",
    "no_retry_delays",
    "set_variables",
    "shared_external_services",
]
