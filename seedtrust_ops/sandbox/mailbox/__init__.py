"""The sandbox's mail server: it stores every email it accepts, lists them, and fails on request."""
