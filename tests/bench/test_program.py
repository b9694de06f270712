"""Programs that measure: options, and mistakes as one line."""

import pytest

from jaxcxr.errors import RunError, UserError
from tests.bench import program


def main(run, *words):
    program.main(lambda parser: parser.add_argument("--size", type=int), run, "Text.", [*words])


def test_options_and_overrides_of_the_config_reach_the_program():
    seen = []
    main(seen.append, "--size=3", "--config=F", "--config.seed=1")
    assert (seen[0].size, seen[0].config) == (3, ["--config=F", "--config.seed=1"])


@pytest.mark.parametrize(("error", "code"), [(UserError, 2), (RunError, 1)])
def test_mistakes_and_failures_are_one_line(error, code, capsys):
    def fail(args):
        raise error("so it is")

    with pytest.raises(SystemExit) as stopped:
        main(fail)
    assert (stopped.value.code, capsys.readouterr().err) == (code, "so it is\n")


def test_unknown_options_are_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(print, "--sise=3")
    assert stopped.value.code == 2
    assert "unrecognized arguments: --sise=3" in capsys.readouterr().err
