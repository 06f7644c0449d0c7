"""HTTP to hosts that callers name: connections, TLS, proxies, and address rules."""
