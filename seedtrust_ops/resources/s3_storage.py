"""Stores files in the S3 bucket REPORTS_BUCKET; endpoint, region and credentials come from boto3's own variables.

Every failure becomes one of the errors in `ports/object_storage`. The callers choose the keys and the content.
"""

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from seedtrust_ops.ports.object_storage import DownloadLink, StorageRejected, StorageUnavailable

if TYPE_CHECKING:
    from boto3.session import Session
    from mypy_boto3_s3 import S3Client

LINK_LIFETIME = timedelta(days=7)
"""docs/rules.md, section 6. Seven days is also the maximum lifetime of an S3 signature."""
CONNECT_SECONDS = 5
READ_SECONDS = 30
MAX_ATTEMPTS = 3

# S3's error codes (Amazon S3 API Reference, "Error responses") and botocore's failures that a retry may fix.
_TRANSIENT_CODES = {"InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout", "500", "502", "503", "504"}
_DENIED_CODES = {
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "403",
}


class S3Storage:
    """A client for one bucket."""

    def __init__(self, session: "Session", client: "S3Client", bucket: str) -> None:
        """Use a client that was made by `session`, whose credentials sign links."""
        self._session = session
        self._client = client
        self.bucket = bucket

    def put(self, key: str, content: bytes, media_type: str = "application/octet-stream") -> None:
        """Store `content` under `key`, replacing any existing object.

        Raises:
            StorageRejected, StorageUnavailable: as every method of this class does.
        """
        with self._translate_errors(key):
            self._client.put_object(Bucket=self.bucket, Key=key, Body=content, ContentType=media_type)

    def put_file(self, key: str, path: Path, media_type: str) -> None:
        """Store the file at `path` under `key`; it is uploaded in parts, never read into memory as a whole."""
        with self._translate_errors(key):
            self._client.upload_file(str(path), self.bucket, key, ExtraArgs={"ContentType": media_type})

    def get(self, key: str) -> bytes:
        """Return the content of the object at `key`."""
        with self._translate_errors(key):
            return self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def delete(self, key: str) -> None:
        """Delete the object at `key`; it is not an error if there is none."""
        with self._translate_errors(key):
            self._client.delete_object(Bucket=self.bucket, Key=key)

    def download_link(self, key: str, filename: str) -> DownloadLink:
        """Return a link from which anyone can download the object as `filename`, for 7 days if our credentials last.

        It is signed here, without a request to S3. A signature ends with the credentials that made it, and temporary
        ones, such as a role's, end within hours.
        """
        with self._translate_errors(key):
            lifetime = self._signature_lifetime()
            url = self._client.generate_presigned_url(
                "get_object",
                Params={
                    "Bucket": self.bucket,
                    "Key": key,
                    "ResponseContentDisposition": f'attachment; filename="{filename}"',
                },
                ExpiresIn=int((lifetime or LINK_LIFETIME).total_seconds()),
            )
            return DownloadLink(url, None if lifetime is None else datetime.now(UTC) + lifetime)

    def _signature_lifetime(self) -> timedelta | None:
        """Return how long a link signed now works at least, or None if the credentials end at a time not known."""
        credentials = self._session.get_credentials()
        if credentials is None or not credentials.get_frozen_credentials().token:
            return LINK_LIFETIME
        if not hasattr(credentials, "refresh_needed"):
            return None
        # Botocore tells whether credentials end within a time, but not when they end.
        minutes = range(1, LINK_LIFETIME // timedelta(minutes=1) + 1)
        ending = bisect_left(minutes, True, key=lambda minute: credentials.refresh_needed(refresh_in=minute * 60))
        return timedelta(minutes=max(ending, 1))

    def uri(self, key: str) -> str:
        """Return the object's s3:// URI."""
        return f"s3://{self.bucket}/{key}"

    @contextmanager
    def _translate_errors(self, key: str) -> Iterator[None]:
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except S3UploadFailedError as error:
            # The uploader wraps S3's error; its own text only adds a prefix.
            cause = error.__cause__ or error.__context__
            if isinstance(cause, ClientError):
                raise self._error_from_response(cause, key) from error
            raise StorageUnavailable(self._unreachable(str(error))) from error
        except ClientError as error:
            raise self._error_from_response(error, key) from error
        except BotoCoreError as error:
            raise self._error_without_response(error) from error

    def _error_from_response(self, error: "Exception", key: str) -> StorageRejected | StorageUnavailable:
        response = getattr(error, "response", {}).get("Error", {})
        code = str(response.get("Code", ""))
        if code in _TRANSIENT_CODES:
            return StorageUnavailable(self._unreachable(code))
        if code == "NoSuchBucket":
            return StorageRejected(
                f"There is no S3 bucket {self.bucket}. Create it or correct REPORTS_BUCKET. Nothing was stored."
            )
        if code in ("NoSuchKey", "404"):
            return StorageRejected(f"There is no object {key} in the S3 bucket {self.bucket}.")
        if code in _DENIED_CODES:
            return StorageRejected(
                f"S3 denied access to the bucket {self.bucket} ({code}). Check the AWS credentials, and that they "
                "allow putting, getting and deleting objects there."
            )
        return StorageRejected(
            f"S3 rejected a request to the bucket {self.bucket}: {code} {response.get('Message', '')}".strip()
        )

    def _error_without_response(self, error: "Exception") -> StorageRejected | StorageUnavailable:
        from botocore.exceptions import NoCredentialsError, NoRegionError, PartialCredentialsError

        if isinstance(error, NoCredentialsError | PartialCredentialsError | NoRegionError):
            return StorageRejected(
                f"S3 can't be used: {error}. Set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_DEFAULT_REGION, or "
                "give this machine an IAM role."
            )
        return StorageUnavailable(self._unreachable(str(error)))

    def _unreachable(self, reason: str) -> str:
        text = " ".join(reason.split()).rstrip(".")
        return f"S3 can't be used for the bucket {self.bucket}: {text}. This may be temporary: try again."


def open_storage(bucket: str) -> S3Storage:
    """Return a client for `bucket`, configured by boto3's own environment variables."""
    # Importing boto3 takes a third of a second, so only runs that store files import it.
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": MAX_ATTEMPTS, "mode": "standard"},
        signature_version="s3v4",
    )
    try:
        # Not the default session: it keeps the credentials that it found first, and threads may not share it.
        session = boto3.session.Session()
        client = session.client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise StorageRejected(f"S3 can't be used: {error}. Check AWS_ENDPOINT_URL and AWS_DEFAULT_REGION.") from error
    return S3Storage(session, client, bucket)
