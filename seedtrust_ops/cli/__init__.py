"""The command line `seedtrust-ops`, with one module per group of commands; each command calls one function elsewhere.

`main` registers the commands. Modules that are slow to import are imported inside the commands.
"""
