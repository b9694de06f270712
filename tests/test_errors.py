"""The wording that all messages share."""

from jaxcxr.errors import counted, did_you_mean, nearest, some


def test_the_nearest_word_is_offered_if_one_is_alike():
    assert nearest("widht", ("width", "depth")) == "width"
    assert did_you_mean("widht", ("width", "depth")) == " Did you mean 'width'?"
    assert did_you_mean("colour", ("width", "depth")) == ""
    assert did_you_mean("12", (13, 128)) == " Did you mean '128'?"
    assert nearest("abcd", ("abxy",)) == ""
    assert nearest("abcd", ("abxy",), cutoff=0.5) == "abxy"


def test_few_names_are_all_said_and_of_many_the_first():
    assert some("abcde") == "a, b, c, d, e"
    assert some("abcdef") == "a, b, c, d, e, ..."


def test_one_thing_is_said_otherwise_than_several():
    assert [counted(n, "file") for n in (0, 1, 2, 1200)] == [
        "0 files", "1 file", "2 files", "1,200 files"]
    assert counted(1, "person is", "people are") == "1 person is"
    assert counted(3, "person is", "people are") == "3 people are"
