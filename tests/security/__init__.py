"""What an attacker would try, against real parts. The modules beside the tests are the attacker's tools."""
