"""What the API and the workers both need: settings, rows, the life of jobs and pushes, sealing, registries."""
