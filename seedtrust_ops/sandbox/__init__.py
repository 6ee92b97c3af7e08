"""Local stand-ins for every external service, seed data, the demo and gameday. Production code never imports it."""
