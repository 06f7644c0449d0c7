loads = []


def load():
    loads.append(1)
    with open("data/letters.txt") as letters:
        return {"letters": letters.read().split()}


def apply(input, globals):
    return {"position": globals["letters"].index(input), "loads": len(loads)}
