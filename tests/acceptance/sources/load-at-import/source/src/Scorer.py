import pickle


def load_model():
    return pickle.loads(pickle.dumps({"weight": 1.0, "bias": 0.5}))


model = load_model()


def apply(input):
    return model["weight"] * sum(input) + model["bias"]
