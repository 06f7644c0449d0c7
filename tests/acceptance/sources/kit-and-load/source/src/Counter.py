from Algorithmia import ADK


def load():
    globals = {}
    globals["payload"] = "ready"
    globals["seen"] = 0
    return globals


def apply(input, globals):
    globals["seen"] += 1
    return {"seen": globals["seen"], "payload": globals["payload"]}


algorithm = ADK(apply, load)
algorithm.init("a")
