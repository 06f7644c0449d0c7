METRE = "m"
