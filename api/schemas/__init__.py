"""What goes in and out over HTTP, field by field as the contract says."""
