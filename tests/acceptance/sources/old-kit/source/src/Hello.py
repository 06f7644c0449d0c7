import Algorithmia
import six
from Algorithmia import ADK


def apply(input):
    assert isinstance(input, six.string_types)
    return "hello {}, {}".format(input, 1)


algorithm = ADK(apply)
algorithm.init("Jane")
