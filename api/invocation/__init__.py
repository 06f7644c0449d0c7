"""Call algorithms: find the instance, send the call to its runner, and return the response."""
