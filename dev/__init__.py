"""What only developers run: real services for tests and the demo, the demo itself, and checks of the source."""
