"""One file per job: when it runs, what it does, what it returns. The business rule itself is a call into `domain`."""
