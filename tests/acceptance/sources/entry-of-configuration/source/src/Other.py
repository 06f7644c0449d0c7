def apply(input):
    return {"entry": "Other"}
