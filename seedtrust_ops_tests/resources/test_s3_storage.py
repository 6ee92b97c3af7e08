"""The S3 client against a server with the real protocol: storing objects, and a clear error for every failure."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from seedtrust_ops.ports.object_storage import StorageRejected, StorageUnavailable
from seedtrust_ops.resources.s3_storage import S3Storage, open_storage
from seedtrust_ops.sandbox.external_services.control_client import StorageServer, start_storage
from seedtrust_ops_tests.support.tiers import Resource, provides


@pytest.fixture(scope="module")
@provides(Resource.PROCESS)
def server() -> Iterator[StorageServer]:
    with start_storage("seedtrust-reports") as running:
        yield running


@pytest.fixture
def storage(server: StorageServer, monkeypatch: pytest.MonkeyPatch) -> S3Storage:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return open_storage(server.bucket)


def test_object_can_be_stored_read_and_deleted(storage: S3Storage, server: StorageServer) -> None:
    storage.put("a/b", b"first")
    storage.put("a/b", b"second")
    assert storage.get("a/b") == b"second"
    storage.delete("a/b")
    storage.delete("a/b")
    assert server.keys() == []
    with pytest.raises(StorageRejected, match="There is no object a/b in the S3 bucket seedtrust-reports"):
        storage.get("a/b")


def test_file_larger_than_one_part_is_stored_whole_with_its_type(
    storage: S3Storage, server: StorageServer, tmp_path: Path
) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * 4096 * 20)
    storage.put_file("large", path, "text/csv")
    assert server.read("large") == path.read_bytes()
    assert server.client().head_object(Bucket=server.bucket, Key="large")["ContentType"] == "text/csv"


def test_download_link_names_the_file_and_lasts_seven_days(storage: S3Storage) -> None:
    storage.put("linked", b"content")
    link = storage.download_link("linked", "Report 1.csv")
    assert "X-Amz-Expires=604800" in link.url
    assert link.expires_at is not None
    assert timedelta(0) <= datetime.now(UTC) + timedelta(days=7) - link.expires_at < timedelta(minutes=1)
    response = httpx.get(link.url)
    assert response.content == b"content"
    assert response.headers["content-disposition"] == 'attachment; filename="Report 1.csv"'
    assert link.url not in repr(link)


@pytest.mark.parametrize("lifetime", [timedelta(hours=5, minutes=30), timedelta(minutes=20), timedelta(days=20)])
def test_download_link_ends_with_temporary_credentials(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch, lifetime: timedelta
) -> None:
    """A role's credentials end within hours, whatever the link says."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token of a role")
    ends_at = datetime.now(UTC) + lifetime
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", ends_at.isoformat())
    link = open_storage(storage.bucket).download_link("key", "report.csv")
    assert link.expires_at is not None
    promised = link.expires_at - datetime.now(UTC)
    assert timedelta(0) <= min(lifetime, timedelta(days=7)) - promised < timedelta(minutes=3)
    assert f"X-Amz-Expires={round(promised.total_seconds() / 60) * 60}" in link.url


def test_download_link_has_no_end_if_that_of_its_credentials_is_unknown(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token of a role")
    link = open_storage(storage.bucket).download_link("key", "report.csv")
    assert link.expires_at is None


@pytest.mark.parametrize("call", ["put", "get", "delete", "put_file"])
def test_missing_bucket_is_named(storage: S3Storage, tmp_path: Path, call: str) -> None:
    (tmp_path / "file").touch()
    missing = open_storage("no-such-bucket")
    arguments = {"put": ("k", b""), "get": ("k",), "delete": ("k",), "put_file": ("k", tmp_path / "file", "text/csv")}
    with pytest.raises(StorageRejected, match="There is no S3 bucket no-such-bucket"):
        getattr(missing, call)(*arguments[call])


def test_silent_server_is_reported_as_temporary(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    silent = open_storage("seedtrust-reports")
    (tmp_path / "file").touch()
    for call in (lambda: silent.put("k", b""), lambda: silent.put_file("k", tmp_path / "file", "text/csv")):
        with pytest.raises(StorageUnavailable, match="S3 can't be used for the bucket seedtrust-reports") as raised:
            call()
        assert raised.value.retry_may_help


def test_missing_credentials_and_invalid_endpoint_name_the_variables(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(StorageRejected, match="Set AWS_ACCESS_KEY_ID"):
        open_storage("seedtrust-reports").put("k", b"")
    with pytest.raises(StorageRejected, match="Set AWS_ACCESS_KEY_ID"):
        open_storage("seedtrust-reports").download_link("k", "report.csv")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "not an address")
    with pytest.raises(StorageRejected, match="Check AWS_ENDPOINT_URL"):
        open_storage("seedtrust-reports")
