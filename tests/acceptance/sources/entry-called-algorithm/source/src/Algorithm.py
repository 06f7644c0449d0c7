from Algorithmia import ADK


def apply(input):
    return "entry {}".format(input)


algorithm = ADK(apply)
algorithm.init("x")
