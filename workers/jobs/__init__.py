"""Run one claimed job: executor, heartbeat, and what every kind of work needs."""
