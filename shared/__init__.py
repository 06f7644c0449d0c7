"""What the API and the workers both need: settings, rows, jobs and pushes, encryption, registries."""
