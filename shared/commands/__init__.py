"""Commands of callers: compile, publish, push, serve, refresh, cancel. Each returns the messages to send."""
