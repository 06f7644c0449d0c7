"""What does the work: builds and pushes on Celery, each a claimed row of the jobs table."""
