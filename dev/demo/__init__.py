"""`make demo`: the main use of Longshore as a caller sees it, step by step, with real services."""
