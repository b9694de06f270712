"""`jaxcxr explain` on a small run."""

import json

from jaxcxr import __main__ as command
from jaxcxr.xray.explain import faithfulness


def run(*arguments, capsys):
    try:
        command.run(["explain", *map(str, arguments)])
        code = 0
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr()


def test_the_command_explains_a_run(xray_run, tmp_path, capsys):
    out = tmp_path / "out"
    code, said = run("--workdir", xray_run, "--images", 6, "--methods", "grad_cam", "--out", out,
                     capsys=capsys)
    assert code == 0
    assert "points" in said.out
    result = json.loads((out / "explanations.json").read_text())
    assert result["cases"] == result["boxes"] == 6
    assert set(result["methods"]) == {"grad_cam", faithfulness.CENTER, faithfulness.NOISE}
    assert 0 <= result["methods"]["grad_cam"]["pointing"] <= 1
    assert (out / "explanations.png").stat().st_size > 10_000
    assert "| grad_cam |" in (out / "explanations.md").read_text()
    code, said = run("--workdir", xray_run, "--methods", "rollout", capsys=capsys)
    assert code == 2
    assert "'rollout' does not explain this model" in said.err
    code, said = run("--workdir", tmp_path / "none", capsys=capsys)
    assert code == 2
