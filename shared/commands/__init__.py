"""Commands of callers: compile, publish, push, repush, serve, refresh, cancel. Each returns the messages to send."""
