"""Keeps files in the S3 bucket of REPORTS_BUCKET; endpoint, region and credentials are boto3's own variables.

It turns every way in which S3 can fail into one of the words of `stored`; what is kept, and where, others decide.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from seedtrust_ops.ports.object_storage import StorageRefused, StorageUnreachable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LINK_LASTS = timedelta(days=7)
"""Design, section 6. Seven days is also the most that a signature of S3's may last."""
CONNECT_SECONDS = 5
READ_SECONDS = 30
TRIES = 3

# S3's error codes (Amazon S3 API Reference, "Error responses") and botocore's failures that another try may mend.
_PASSING_CODES = {"InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout", "500", "502", "503", "504"}
_NOT_LET_IN = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403"}


class S3Storage:
    """One bucket."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._client = client
        self.bucket = bucket

    def put(self, key: str, content: bytes, media_type: str = "application/octet-stream") -> None:
        """Keep `content` under `key`, in place of whatever was there.

        Raises:
            StorageRefused, StorageUnreachable: as every call here does.
        """
        with self._sentences(key):
            self._client.put_object(Bucket=self.bucket, Key=key, Body=content, ContentType=media_type)

    def put_file(self, key: str, path: Path, media_type: str) -> None:
        """Keep the file at `path` under `key`; it is read and sent in parts, never whole."""
        with self._sentences(key):
            self._client.upload_file(str(path), self.bucket, key, ExtraArgs={"ContentType": media_type})

    def get(self, key: str) -> bytes:
        """Return what is kept under `key`."""
        with self._sentences(key):
            return self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def delete(self, key: str) -> None:
        """Remove what is kept under `key`; it is no error where nothing is."""
        with self._sentences(key):
            self._client.delete_object(Bucket=self.bucket, Key=key)

    def link(self, key: str, filename: str) -> str:
        """Return an address under which anybody can fetch the object, as a file of that name, for 7 days.

        It is signed with our credentials: where those are a role's, it ends with them.
        """
        with self._sentences(key):
            return self._client.generate_presigned_url(
                "get_object",
                Params={
                    "Bucket": self.bucket,
                    "Key": key,
                    "ResponseContentDisposition": f'attachment; filename="{filename}"',
                },
                ExpiresIn=int(LINK_LASTS.total_seconds()),
            )

    def place(self, key: str) -> str:
        """Return where the object is, as people write it."""
        return f"s3://{self.bucket}/{key}"

    @contextmanager
    def _sentences(self, key: str) -> Iterator[None]:
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except S3UploadFailedError as error:
            # The uploader wraps what S3 said; its own text is the same with a prefix.
            cause = error.__cause__ or error.__context__
            if isinstance(cause, ClientError):
                raise self._in_words(cause, key) from error
            raise StorageUnreachable(self._unreachable(str(error))) from error
        except ClientError as error:
            raise self._in_words(error, key) from error
        except BotoCoreError as error:
            raise self._without_answer(error) from error

    def _in_words(self, error: "Exception", key: str) -> StorageRefused | StorageUnreachable:
        answer = getattr(error, "response", {}).get("Error", {})
        code = str(answer.get("Code", ""))
        if code in _PASSING_CODES:
            return StorageUnreachable(self._unreachable(code))
        if code == "NoSuchBucket":
            return StorageRefused(
                f"There is no S3 bucket {self.bucket}. Make it, or correct REPORTS_BUCKET; nothing was kept."
            )
        if code in ("NoSuchKey", "404"):
            return StorageRefused(f"There is no object {key} in the S3 bucket {self.bucket}.")
        if code in _NOT_LET_IN:
            return StorageRefused(
                f"S3 does not let us into the bucket {self.bucket} ({code}). Check the AWS credentials, and that they "
                "may put, get and delete objects there."
            )
        return StorageRefused(
            f"S3 refused a call on the bucket {self.bucket}: {code} {answer.get('Message', '')}".strip()
        )

    def _without_answer(self, error: "Exception") -> StorageRefused | StorageUnreachable:
        from botocore.exceptions import NoCredentialsError, NoRegionError, PartialCredentialsError

        if isinstance(error, NoCredentialsError | PartialCredentialsError | NoRegionError):
            return StorageRefused(
                f"S3 can't be used: {error}. Set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_DEFAULT_REGION, or "
                "give this machine a role."
            )
        return StorageUnreachable(self._unreachable(str(error)))

    def _unreachable(self, reason: str) -> str:
        said = " ".join(reason.split()).rstrip(".")
        return f"S3 can't be used for the bucket {self.bucket}: {said}. It may be back in a moment."


def open_storage(bucket: str) -> S3Storage:
    """Return `bucket` by boto3's own environment."""
    # boto3 is a third of a second of imports, which only runs that keep files should pay.
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": TRIES, "mode": "standard"},
        signature_version="s3v4",
    )
    try:
        # A session of its own: the default one keeps the credentials it found first, and threads may not share it.
        client = boto3.session.Session().client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise StorageRefused(f"S3 can't be used: {error}. Check AWS_ENDPOINT_URL and AWS_DEFAULT_REGION.") from error
    return S3Storage(client, bucket)
