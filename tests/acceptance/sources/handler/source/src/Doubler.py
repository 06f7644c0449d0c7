import Algorithmia


def load():
    return {"factor": 2}


def apply(input, context):
    return input * context["factor"]


Algorithmia.handler(apply, load).serve()
