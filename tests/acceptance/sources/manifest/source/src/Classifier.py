from Algorithmia import ADK


def load(model_data):
    return {"classes": ["even", "odd"], "available": model_data.available()}


def apply(input, state):
    return {"class": state["classes"][input % 2], "available": state["available"]}


algorithm = ADK(apply, load)
algorithm.init(2)
