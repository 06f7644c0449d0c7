from Algorithmia import ADK


def load(model_data):
    return {"path": model_data.get_model("detector")}


def apply(input, state):
    return state["path"]


ADK(apply, load).init(1)
