"""Webhooks: their events, the outbox of deliveries, and signatures."""
