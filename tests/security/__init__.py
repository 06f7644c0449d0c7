"""Attacks on real services. The modules beside the tests are the attacker's tools."""
