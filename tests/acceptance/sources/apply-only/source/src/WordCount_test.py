from . import WordCount

def test_WordCount():
    assert WordCount.apply("a a b") == {"a": 2, "b": 1}
