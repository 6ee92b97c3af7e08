"""Stock Dagster doing the same work: the same op, Dagster's own launcher, and sensors and schedules as in its guide."""
