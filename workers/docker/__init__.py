"""Everything that speaks to a Docker engine."""
