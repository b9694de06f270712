"""The wording that all messages share."""

from jaxcxr.errors import did_you_mean, nearest, some


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
