"""`seedtrust-ops`: the command line, one file a group of commands. No rule lives here: each command is one call.

`main` registers every group; whatever is slow to import is imported inside the command.
"""
