"""Images on their way: from the request to `succeeded`, beside the tools that bring the same bytes there."""
