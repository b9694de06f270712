"""What a run leaves in metrics.jsonl and TensorBoard, and what it says on the screen."""

import io

import pytest
from rich.console import Console
from tensorboardX.proto import event_pb2

from jaxcxr.errors import UserError
from jaxcxr.report import curves
from jaxcxr.train import writers


def write(workdir, first_step, *records):
    writer = writers.MetricWriter(workdir, first_step)
    for step, kind, values in records:
        writer.write(step, kind, values)
    writer.close()


def read(workdir):
    return curves.read_metrics(workdir / "metrics.jsonl")


def train(step):
    return step, "train", {"loss": 1.0 / step}


def test_lines_of_steps_that_are_done_again_are_dropped(tmp_path):
    write(tmp_path, 0, (0, "stage", {"name": "a"}), train(1), train(2), (2, "stage", {"name": "b"}),
          train(3), train(4), (2, "test", {"auroc": 0.5}))
    write(tmp_path, 2, (2, "stage", {"name": "b"}), train(3))
    found = [(record["step"], record["kind"]) for record in read(tmp_path)]
    assert found == [(0, "stage"), (1, "train"), (2, "train"), (2, "stage"), (3, "train")]


def test_an_evaluation_replaces_the_test_result_only(tmp_path):
    write(tmp_path, 0, train(1), train(2), (2, "test", {"auroc": 0.5}))
    write(tmp_path, None, (2, "test", {"auroc": 0.6}))
    assert [record["kind"] for record in read(tmp_path)] == ["train", "train", "test"]
    assert read(tmp_path)[-1]["auroc"] == 0.6


@pytest.mark.parametrize("cut", [1, 2, 5, 12, 42])
def test_a_line_cut_by_an_interruption_is_dropped(tmp_path, cut):
    write(tmp_path, 0, train(1), train(2))
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    write(tmp_path, 2, train(3))
    assert [record["step"] for record in read(tmp_path)] == ([1, 2, 3] if cut == 1 else [1, 3])


def test_an_evaluation_beside_a_training_loses_no_line(tmp_path):
    training = writers.MetricWriter(tmp_path, 0)
    training.write(*train(1))
    write(tmp_path, None, (1, "test", {"auroc": 0.5}))
    write(tmp_path, None, (1, "test", {"auroc": 0.6}))
    training.write(*train(2))
    training.close()
    assert [(record["kind"], record["step"]) for record in read(tmp_path)] == [
        ("train", 1), ("test", 1), ("train", 2)
    ]
    assert read(tmp_path)[1]["auroc"] == 0.6


def test_a_writer_that_wrote_nothing_changes_nothing(tmp_path):
    write(tmp_path, 0, train(1))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write(tmp_path, None)
    write(tmp_path, 0)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("line", ["{]}", "\x00\x00", "[1]", '{"step": "x", "kind": "train"}', "5"])
def test_a_damaged_line_is_named(tmp_path, line):
    write(tmp_path, 0, train(1))
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{line}\n{path.read_text()}")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1 is not"):
        read(tmp_path)


def test_tensorboard_reads_the_numbers_and_the_purge(tmp_path):
    write(tmp_path, 0, train(1), (1, "stage", {"name": "a"}), train(2))
    first, = (tmp_path / "tensorboard").iterdir()
    assert scalars(first) == [(1, "train/loss", 1.0), (2, "train/loss", 0.5)]
    first.unlink()  # the next may be written in the same second, of which the name is made
    write(tmp_path, 1, train(2))
    second, = (tmp_path / "tensorboard").iterdir()
    assert scalars(second) == [(2, "train/loss", 0.5)]
    starts = [event.step for event in events(second) if event.HasField("session_log")]
    assert starts == [2], "TensorBoard must forget what the first file says from step 2 on"


def events(path):
    """Events of a file in TFRecord framing: length, its checksum, data, its checksum."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        found.append(event_pb2.Event.FromString(data[at + 12 : at + 12 + length]))
        at += 16 + length
    return found


def scalars(path):
    return [
        (event.step, value.tag, value.simple_value) for event in events(path)
        for value in event.summary.value
    ]


STATUS = {"stage": "head", "loss": 0.5, "steps_per_second": 0.1, "examples_per_second": 1234.5,
          "data_wait": 0.25}


def test_plain_lines_where_there_is_no_terminal(capsys):
    screen = writers.Screen()
    screen.table("jaxcxr", {"model": "resnet50", "workdir": "runs/[bold]x"})
    with screen.progress(0, 20):
        screen.step(10, STATUS)
        screen.step(20, STATUS)
    lines = capsys.readouterr().out.splitlines()
    assert any("resnet50" in line for line in lines)
    assert [line for line in lines if line.startswith("step ")] == [
        "step 10/20 | head | loss 0.5 | 1,234.5 examples/s | waiting for data 25% | ETA 1:40",
        "step 20/20 | head | loss 0.5 | 1,234.5 examples/s | waiting for data 25% | ETA 0:00",
    ]
    assert "\x1b" not in "".join(lines)


def test_text_is_printed_as_it_is(capsys):
    writers.Screen().print("patient [1] [/red]")
    assert capsys.readouterr().out == "patient [1] [/red]\n"


def test_one_line_in_a_terminal():
    screen = writers.Screen()
    text = io.StringIO()
    screen.console = Console(file=text, force_terminal=True, width=120)
    with screen.progress(0, 20):
        screen.step(10, STATUS)
    assert "waiting for data 25%" in text.getvalue()
    assert "step 10/20" in text.getvalue()
    with pytest.raises(KeyError, match="steps_per_second"), screen.progress(0, 20):
        screen.step(10, {})
    assert screen.console._live_stack == [], "the progress line must end"


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0:00"), (59.6, "1:00"), (3600, "1:00:00"), (3725, "1:02:05"), (float("inf"), "?"),
])
def test_clock(seconds, text):
    assert writers._clock(seconds) == text
