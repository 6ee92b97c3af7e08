"""Reports: claim a request, build and store its file, and email the requester the report or the reason it failed."""
