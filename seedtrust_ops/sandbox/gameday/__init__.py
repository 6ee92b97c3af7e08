"""A drill on the sandbox: each trouble is caused in turn; it must be noticed, told, mended, and the money be right."""
