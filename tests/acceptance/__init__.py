"""The whole product, as its users meet it: `longshore up` on real parts, the published clients, curl, git."""
