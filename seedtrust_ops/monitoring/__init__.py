"""Monitoring of the jobs: the JobRun mirror, queue expiry, and the health sensor that notifies people of alerts."""
