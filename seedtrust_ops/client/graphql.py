"""The GraphQL requests to Dagster: the documents, their variables, and whether a request may be repeated.

The order of requests is in `workflows`; `client` sends them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REPOSITORY = "__repository__"
"""Dagster's name for the only repository of a code location that consists of definitions."""
EVENTS_PER_PAGE = 500
_RUN = "runId jobName status creationTime startTime endTime tags { key value }"
_ERRORS = """
... on PythonError { message className }
... on UnauthorizedError { message }
"""

LAUNCH = f"""
mutation Launch($execution: ExecutionParams!) {{
  launchPipelineExecution(executionParams: $execution) {{
    __typename
    ... on LaunchRunSuccess {{ run {{ runId }} }}
    ... on RunConfigValidationInvalid {{ errors {{ message }} }}
    ... on PipelineNotFoundError {{ message }}
    {_ERRORS}
  }}
}}
"""
RUNS_OF_REQUEST = f"""
query RunsOfRequest($job: String!, $tag: ExecutionTag!) {{
  runsOrError(filter: {{pipelineName: $job, tags: [$tag]}}, limit: 1) {{
    __typename
    ... on Runs {{ results {{ {_RUN} }} }}
    ... on PythonError {{ message className }}
  }}
}}
"""
RUN = f"""
query Run($runId: ID!) {{
  runOrError(runId: $runId) {{
    __typename
    ... on Run {{ {_RUN} }}
    ... on PythonError {{ message className }}
  }}
}}
"""
EVENTS = f"""
query Events($runId: ID!, $after: String) {{
  runOrError(runId: $runId) {{
    __typename
    ... on Run {{
      eventConnection(afterCursor: $after, limit: {EVENTS_PER_PAGE}) {{
        cursor
        hasMore
        events {{
          __typename
          ... on HandledOutputEvent {{
            stepKey
            metadataEntries {{ label ... on JsonMetadataEntry {{ jsonString }} }}
          }}
          ... on ExecutionStepFailureEvent {{ failureMetadata {{ description }} }}
        }}
      }}
    }}
    ... on PythonError {{ message className }}
  }}
}}
"""
CODE = """
query Code($location: String!) {
  workspaceLocationEntryOrError(name: $location) {
    __typename
    ... on WorkspaceLocationEntry { locationOrLoadError { __typename } }
    ... on PythonError { message className }
  }
}
"""
REVOKE = f"""
mutation Revoke($runId: String!) {{
  terminateRun(runId: $runId) {{
    __typename
    ... on TerminateRunFailure {{ message run {{ status }} }}
    {_ERRORS}
  }}
}}
"""


@dataclass(frozen=True)
class GraphQLRequest:
    """One GraphQL request.

    `field` is the field of the response that has the result. `is_repeatable` means that the request changes nothing,
    so it is sent again if there is no response.
    """

    document: str
    variables: Mapping[str, Any]
    field: str
    is_repeatable: bool


def run_query(run_id: str) -> GraphQLRequest:
    """Return the query for a run's record."""
    return GraphQLRequest(RUN, {"runId": run_id}, "runOrError", is_repeatable=True)


def events_query(run_id: str, after: str | None) -> GraphQLRequest:
    """Return the query for one page of a run's events, after the cursor `after`."""
    return GraphQLRequest(EVENTS, {"runId": run_id, "after": after}, "runOrError", is_repeatable=True)


def runs_by_tag_query(job: str, tag: str, value: str) -> GraphQLRequest:
    """Return the query for the newest run of a job with a tag."""
    variables = {"job": job, "tag": {"key": tag, "value": value}}
    return GraphQLRequest(RUNS_OF_REQUEST, variables, "runsOrError", is_repeatable=True)


def code_location_query(location: str) -> GraphQLRequest:
    """Return the query for whether the web server has loaded a code location."""
    return GraphQLRequest(CODE, {"location": location}, "workspaceLocationEntryOrError", is_repeatable=True)


def revoke_mutation(run_id: str) -> GraphQLRequest:
    """Return the mutation that cancels a run."""
    return GraphQLRequest(REVOKE, {"runId": run_id}, "terminateRun", is_repeatable=False)


def launch_mutation(location: str, job: str, config: Mapping[str, Any], tags: Mapping[str, str]) -> GraphQLRequest:
    """Return the mutation that launches a job; `config` is that of its op, which has the job's name."""
    execution = {
        "selector": {"repositoryLocationName": location, "repositoryName": REPOSITORY, "jobName": job},
        "runConfigData": {"ops": {job: {"config": dict(config)}}} if config else {},
        "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
    }
    return GraphQLRequest(LAUNCH, {"execution": execution}, "launchPipelineExecution", is_repeatable=False)
