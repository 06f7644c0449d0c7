"""Webhooks: what is told to whom. Written with what happened, in one transaction; sent afterwards by a worker."""
