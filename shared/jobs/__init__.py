"""Jobs: claimed under a lease, ended or requeued behind a fence; by query which ones are due."""
