"""Runs Dagster's own web application behind the request guard: the Dagster UI and the GraphQL that clients use.

It replaces the command `dagster-webserver`, which answers every request. It loads no job, so it needs neither the
bank's key nor the field keys.
"""

import signal
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import uvicorn

from seedtrust_ops.config import get_settings
from seedtrust_ops.dagster_internals import (
    POOLED_CONNECTIONS,
    WEB_SERVER,
    WorkspaceFileTarget,
    WorkspaceProcessContext,
    WorkspaceRequestContext,
    create_app_from_workspace_process_context,
    is_available,
    require,
)
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.web.request_guard import RequestGuard

# Dagster's own defaults.
STATEMENT_TIMEOUT_MILLISECONDS = 15_000
POOL_RECYCLE_SECONDS = 3600
MAX_POOL_OVERFLOW = 20
POLL_MILLISECONDS = 2000
"""How often the UI asks for new asset data."""

REPORT_PERMISSION = "report_runless_asset_events"


class RequestContext(WorkspaceRequestContext):
    """Dagster's context of a request, without the permission to record that an asset was made or a check passed.

    Only jobs record that. The guard closes the REST paths for it, and this closes the same in GraphQL.
    """

    @property
    def permissions(self) -> Mapping[str, Any]:
        return _without_reports(super().permissions)

    def permissions_for_location(self, *, location_name: str) -> Mapping[str, Any]:
        return _without_reports(super().permissions_for_location(location_name=location_name))


class ProcessContext(WorkspaceProcessContext):
    """Dagster's context of a web server, which answers requests with a `RequestContext`."""

    def create_request_context(self, source: object | None = None) -> WorkspaceRequestContext:
        context = super().create_request_context(source)
        # Its constructor has other arguments in other versions.
        context.__class__ = RequestContext
        return context


def _without_reports(permissions: Mapping[str, Any]) -> Mapping[str, Any]:
    reason = "Only the jobs record that an asset was made or checked."
    return {
        name: one._replace(enabled=False, disabled_reason=reason) if name == REPORT_PERMISSION else one
        for name, one in permissions.items()
    }


def serve(workspace: Path, *, host: str, port: int, read_only: bool, allowed_hosts: Collection[str]) -> None:
    """Serve the UI of the code locations in a workspace file, until SIGTERM or Ctrl-C.

    Args:
        workspace: the workspace.yaml that names the code servers.
        host: the address to listen on.
        port: the port to listen on.
        read_only: whether to refuse every launch and every other change.
        allowed_hosts: the names of this server, besides loopback and the address that a request came to.

    Raises:
        ConfigurationError: if there is no such workspace file, or DAGSTER_HOME is not set.
        DagsterIncompatible: if the installed version of Dagster lacks what this needs. Nothing is served unguarded.
    """
    require(WEB_SERVER)
    if not workspace.is_file():
        raise ConfigurationError(
            f"There is no workspace file {workspace}. Start `seedtrust-ops worker`, which writes it, or pass "
            "another file as `--workspace`."
        )
    if get_settings().location.dagster_home is None:
        raise ConfigurationError("DAGSTER_HOME is not set. Set it to the worker's folder, which contains dagster.yaml.")
    # uvicorn handles the signal, and raises it again at its end. By default that would end the process at once.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with dg.DagsterInstance.get() as instance:
        if is_available(POOLED_CONNECTIONS):
            instance.optimize_for_webserver(STATEMENT_TIMEOUT_MILLISECONDS, POOL_RECYCLE_SECONDS, MAX_POOL_OVERFLOW)
        target = WorkspaceFileTarget([str(workspace)])
        with ProcessContext(instance, target, version=dg.__version__, read_only=read_only) as process:
            app = create_app_from_workspace_process_context(process, live_data_poll_rate=POLL_MILLISECONDS)
            uvicorn.run(
                RequestGuard(app, allowed_hosts), host=host, port=port, log_level="warning", server_header=False
            )
