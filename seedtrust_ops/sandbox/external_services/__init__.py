"""Local stand-ins for S3, CloudFront's origin, SeedTrust's internal status API and PostHog's capture endpoint."""
