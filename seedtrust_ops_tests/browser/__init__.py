"""What people see and click in Dagster's UI, in a real browser on a real `seedtrust-ops dev`."""
