"""What callers order: a compile, a publish, a push, a stop. Each writes rows; the caller then sends the messages."""
