"""Having worker nodes, or what runs on them, pull afresh: what was ordered, what it is about, how far it is."""
