"""Request and response bodies, field by field as in the contract."""
