"""One file a job: when it runs, what it does, what it yields. The rule itself is one call into `domain/`."""
