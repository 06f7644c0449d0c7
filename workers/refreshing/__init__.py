"""Having worker nodes pull afresh."""
