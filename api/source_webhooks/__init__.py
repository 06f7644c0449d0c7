"""Webhooks that repositories elsewhere send: who sent one, whether it is signed, and what was pushed."""
