"""The weekly operations review: runs and failures, approvals, money moved, reports and their waiting times."""
