"""README and docs: the two commands, links, tables, and a build without warnings."""

import importlib.util
import json
import pathlib
import pkgutil
import re
import shutil
import subprocess
import sys

import pytest

from docs.examples import folder_of_images
from jaxcxr import __main__, registry
from jaxcxr.__main__ import COMMANDS
from tests.test_architecture import MAY_IMPORT

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
SHOWN = (
    "pip install -e . && python -m jaxcxr.main --config=configs/demo.py --workdir=runs/demo",
    "pip install -e '.[test]' && pytest",
)


@pytest.fixture
def tables():
    """docs/tables.py as a module."""
    spec = importlib.util.spec_from_file_location("tables", DOCS / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_has_the_two_commands_and_fits_on_a_page():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert [line for line in lines if line in SHOWN] == list(SHOWN)
    assert len(lines) <= 200


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_what_a_page_refers_to_exists(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    files = [target for target in targets if not target.startswith(("http", "#"))]
    for target in files:
        name, _, anchor = target.partition("#")
        path = page.parent / name
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{page.name}: {target}"


def test_files_that_pages_name_exist():
    named = {
        name for page in PAGES for name in re.findall(
            r"(?<![\w/.])((?:jaxcxr|configs|tests|launch|docs)/[\w/]+\.[a-z]+)\b", page.read_text()
        )
    }
    named |= {  # folders, and files whose ending is left out
        name for page in PAGES for name in re.findall(
            r"(?<![\w/.])((?:jaxcxr|configs|tests|launch|docs)(?:/\w+)+)/?(?![\w/.*-])",
            page.read_text(),
        )
    }
    assert {"configs/demo.py", "docs/results"} <= named
    assert sorted(name for name in named if not (ROOT / name).exists()) == [
        "docs/results/NAME.json"  # stands for any
    ]


def test_files_that_the_walks_of_the_architecture_name_exist():
    text = (DOCS / "architecture.md").read_text()
    named = set(re.findall(r"`([a-z]\w*(?:/\w*)*(?:/|\.py))`", text))
    assert {"main.py", "data/label_tables.py", "xray/sources/"} <= named
    missing = [n for n in named if not any((root / n).exists() for root in (ROOT, ROOT / "jaxcxr"))]
    assert missing == []


def test_modules_that_pages_name_exist():
    named = {
        name for page in PAGES for pattern in (r"`(jaxcxr(?:\.\w+)+)`", r"-m (tests\.bench\.\w+)")
        for name in re.findall(pattern, page.read_text())
    }
    assert {"jaxcxr.train", "tests.bench.torch_bench"} <= named
    for name in sorted(named):
        pkgutil.resolve_name(name)


def test_commands_that_pages_show_exist_with_their_options(capsys, monkeypatch):
    monkeypatch.setitem(registry.SOURCES, folder_of_images.NAME, folder_of_images.ENTRY)
    wrong, seen = [], set()
    for page in PAGES:
        for name, rest in _shown_commands(page.read_text()):
            seen.add(name)
            words = rest.split("#")[0].split()
            options = {word.split("=")[0].strip("[]") for word in words if "--" in word[:3]}
            options = {option for option in options if not option.startswith("--config")}
            part = words[:1] if name in ("bench", "prepare") else []
            part = ["chestxray14"] if part == ["SOURCE"] else part
            known = _help(name, part, capsys)
            wrong += [f"{page.name}: jaxcxr {name}: {o}" for o in options if o not in known]
    assert seen >= COMMANDS.keys()
    assert wrong == []


def _shown_commands(text):
    """Commands in code: (name, the rest of the line)."""
    text = text.replace("\\\n", " ")
    fenced = re.findall(r"^```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines = [line for block in fenced for line in block.splitlines()]
    for line in lines + re.findall(r"`([^`]+)`", outside):
        yield from re.findall(r"^(?:\S+=\S+ )?jaxcxr ([a-z]+)\b *(.*)", line)


def _help(name, part, capsys):
    """What `jaxcxr NAME [PART] --help` prints."""
    with pytest.raises(SystemExit) as ended:
        __main__.run([name, *part, "--help"])
    text = capsys.readouterr().out
    assert not ended.value.code, (name, part)
    return text


def test_the_table_of_imports_is_that_of_the_test():
    text = (DOCS / "architecture.md").read_text()
    found, above = {}, set()
    for line in text[text.index("| room | may import |"):].splitlines()[2:]:
        if not line.startswith("|"):
            break
        rooms = set(re.findall(r"`(\w+)`", line.split("|")[1]))
        allowed, _, but = line.split("|")[2].strip().partition(" but ")
        names = {
            "nothing of ours": set(), "all of the above": set(above) - set(but.split(", ")),
        }.get(allowed, set(allowed.split(", ")))
        found |= dict.fromkeys(rooms, names)
        above |= rooms
    assert found == {room: names - {room} for room, names in MAY_IMPORT.items()}


def test_tables_are_up_to_date(tables, capsys):
    assert tables.main(check=True) == 0, capsys.readouterr().out


def test_a_table_that_differs_from_its_file_is_found(tables, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables, "DOCS", tmp_path / "docs")
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "README.md").write_text("AUROC <!-- results:a.auroc -->0.5<!-- end -->.\n")
    page = tmp_path / "docs" / "page.md"
    page.write_text("<!-- results:a row=x -->\n<!-- end -->\n")
    result = {"command": "c", "date": "d", "versions": "v", "machine": "m", "values":
              {"auroc": "0.9"}, "columns": ["row", "n"], "rows": [["x", "1"], ["y", "2"]]}
    (tmp_path / "docs" / "results" / "a.json").write_text(json.dumps(result))
    assert tables.main(check=True) == 1
    assert capsys.readouterr().out == (
        "Out of date: README.md, page.md. Run python docs/tables.py.\n"
    )
    assert tables.main(check=False) == 0
    assert tables.main(check=True) == 0
    assert "<!-- results:a.auroc -->0.9<!-- end -->" in (tmp_path / "README.md").read_text()
    assert "| n |\n| ---: |\n| 1 |\n\n*`c`. Machine: m" in page.read_text()

    page.write_text("<!-- results:b -->\n<!-- end -->\n")
    assert tables.main(check=True) == 1
    page.write_text("<!-- results:a -->\n")
    assert tables.main(check=True) == 1


def test_result_files_say_where_numbers_come_from(tables):
    used = " ".join(page.read_text() for page in PAGES)
    for path in sorted((DOCS / "results").glob("*.json")):
        found = tables.result(path.stem)
        assert set(found) - {"note"} == {
            "command", "date", "versions", "machine", "columns", "rows", "values"
        }, path.name
        assert found["command"] or "command" in " ".join(found["columns"]) or any(
            "`" in row[0] for row in found["rows"]
        ), f"{path.name}: no command"
        assert all(len(row) == len(found["columns"]) for row in found["rows"]), path.name
        assert f"results:{path.stem}" in used, f"{path.name} stands in no page"
        for key in found["values"]:
            assert f"results:{path.stem}.{key} " in used, f"{path.name}: {key} stands in no page"


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="needs the extra docs")
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("api"))
    (tmp_path / "jaxcxr").symlink_to(ROOT / "jaxcxr")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html",
               tmp_path / "docs", tmp_path / "out"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "api" / "jaxcxr.config.keys.html").exists()
