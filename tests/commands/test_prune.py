"""`jaxcxr prune`: options out of range are refused before a run is opened."""

import pytest

from jaxcxr import __main__ as command


@pytest.mark.parametrize("option", ["--rounds=0", "--examples=0", "--round-spans=-1"])
def test_options_out_of_range(option, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.run(["prune", "--workdir=a", f"--out={tmp_path / 'new'}", option])
    assert stopped.value.code == 2
    assert option.partition("=")[0] in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
