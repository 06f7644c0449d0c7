from Algorithmia import ADK


def load():
    return open("models/missing.pkl", "rb")


def apply(input, model):
    return 1


ADK(apply, load).init(1)
