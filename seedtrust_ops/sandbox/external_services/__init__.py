"""The rest of the outside world: S3, CloudFront's origin, the internal status API and PostHog's capture endpoint."""
