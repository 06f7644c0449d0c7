"""HTTP to hosts that somebody else named: connections, TLS, proxies, and the rules on addresses."""
