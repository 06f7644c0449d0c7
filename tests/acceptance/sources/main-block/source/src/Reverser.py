import sys


def apply(input):
    if input == "name":
        return __name__
    return input[::-1]


if __name__ == "__main__":
    with open("/home/author/samples.txt") as samples:
        for line in samples:
            print(apply(line))
    sys.exit(0)
