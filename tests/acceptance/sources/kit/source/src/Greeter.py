import Algorithmia
from Algorithmia import ADK

client = Algorithmia.client()


def apply(input):
    if isinstance(input, str):
        return "hello {}".format(input)
    if isinstance(input, dict) and "name" in input:
        return {"greetings": ["hello " + input["name"]] * input.get("times", 1)}
    raise Exception("give a name or an object with a name")


algorithm = ADK(apply)
algorithm.init("Ann")
