"""Monitoring of the jobs: the JobRun mirror, and the health sensor that notifies people of alerts."""
