"""The sandbox's mail server: it keeps every letter it takes, shows them, and fails as it is told to."""
