"""A fire drill: each incident is caused on a sandbox, and must be detected, notified, recovered from and reconciled."""
