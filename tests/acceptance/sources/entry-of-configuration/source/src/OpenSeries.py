def apply(input):
    return {"entry": "OpenSeries"}
