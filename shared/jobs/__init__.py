"""The life of a job: dispatched, claimed under a lease, ended behind a fence, settled with the jobs that wait for it."""
