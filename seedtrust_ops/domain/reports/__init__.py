"""Reports: a request is claimed, its file is built and stored, and its requester gets it or is told why not."""
