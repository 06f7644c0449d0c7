def apply(input):
    print "hello"
    return input
