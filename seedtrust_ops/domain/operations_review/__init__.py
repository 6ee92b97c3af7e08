"""A week of operations at a glance: runs and failures, approvals, money moved, reports and their waiting times."""
