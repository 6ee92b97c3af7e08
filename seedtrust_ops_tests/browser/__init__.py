"""Tests of the Dagster UI in a real browser, on a real `seedtrust-ops dev`."""
