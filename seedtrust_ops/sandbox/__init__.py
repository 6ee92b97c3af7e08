"""The outside world on one laptop: servers, seed data and the demo. Nothing in production imports it."""
