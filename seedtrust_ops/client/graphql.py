"""What Dagster's GraphQL is asked: the documents, and whether a question may be asked twice.

Which question follows which is `dialogues`'; how they travel `operations`'.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REPOSITORY = "__repository__"
"""What Dagster calls the one repository of a code location that is made of definitions."""
EVENTS_A_PAGE = 500
_RUN = "runId jobName status creationTime startTime endTime tags { key value }"
_TROUBLE = """
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
    {_TROUBLE}
  }}
}}
"""
RUNS_OF_REQUEST = f"""
query RunsOfRequest($tag: ExecutionTag!) {{
  runsOrError(filter: {{tags: [$tag]}}, limit: 1) {{
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
      eventConnection(afterCursor: $after, limit: {EVENTS_A_PAGE}) {{
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
    {_TROUBLE}
  }}
}}
"""


@dataclass(frozen=True)
class Question:
    """One request to GraphQL; `field` is the one of its answer that matters, `repeatable` whether asking changes
    nothing, so that it is asked again where no answer came."""

    document: str
    variables: Mapping[str, Any]
    field: str
    repeatable: bool


def run_of(run_id: str) -> Question:
    """Ask for a run's record."""
    return Question(RUN, {"runId": run_id}, "runOrError", repeatable=True)


def events_of(run_id: str, after: str | None) -> Question:
    """Ask for a page of a run's events, those after the cursor `after`."""
    return Question(EVENTS, {"runId": run_id, "after": after}, "runOrError", repeatable=True)


def runs_with(tag: str, value: str) -> Question:
    """Ask for the newest run that bears a tag."""
    return Question(RUNS_OF_REQUEST, {"tag": {"key": tag, "value": value}}, "runsOrError", repeatable=True)


def code_of(location: str) -> Question:
    """Ask whether the server has the code of a code location."""
    return Question(CODE, {"location": location}, "workspaceLocationEntryOrError", repeatable=True)


def revocation(run_id: str) -> Question:
    """Ask that a run be canceled."""
    return Question(REVOKE, {"runId": run_id}, "terminateRun", repeatable=False)


def launching(location: str, job: str, config: Mapping[str, Any], tags: Mapping[str, str]) -> Question:
    """Ask that a job be launched; `config` is its op's, which bears the job's name."""
    execution = {
        "selector": {"repositoryLocationName": location, "repositoryName": REPOSITORY, "jobName": job},
        "runConfigData": {"ops": {job: {"config": dict(config)}}} if config else {},
        "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
    }
    return Question(LAUNCH, {"execution": execution}, "launchPipelineExecution", repeatable=False)
