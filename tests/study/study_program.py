"""Stands in for the process of one run, without JAX: `python study_program.py WORKDIR`.

It leaves the files that a run leaves, and obeys the config: a learning rate of 13 fails, one of 7
waits for SIGTERM. The test metric is 100 times the learning rate, plus the seed.
"""

import json
import pathlib
import signal
import sys
import time


def run(folder: pathlib.Path) -> None:
    config = json.loads((folder / "request.json").read_text())
    (folder / "config.json").write_text(json.dumps({"config": config}))
    with (folder.parents[2] / "order.txt").open("a") as file:
        file.write(f"{folder.relative_to(folder.parents[2])}\n")
    rate = config["stages"]["all"]["learning_rate"]
    if rate == 13:
        print("step 1\njaxcxr: not finite at step 3:\n  lower the learning rate")
        sys.exit(1)
    if rate == 7:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        (folder / "ready").touch()
        time.sleep(60)
    metrics = {"mpjpe": 100 * rate + config["seed"]}
    errors = {name: [metrics["mpjpe"], 1.0] for name in ("mpjpe", "p_mpjpe", "mpjve")}
    (folder / "result.json").write_text(json.dumps({
        "monitor": "mpjpe", "test": metrics, "validation": metrics,
        "parameters": 1000, "flops": 1e6, "steps": 8, "batch_size": 16, "examples_per_second": 64.0,
        "milliseconds": 2.0, "sequences": {"03/1/a": errors, "03/2/a": errors},
        "learned": {"backbone/blocks_0/attention/group_0/span": [0.25, 1.0]},
    }))


if __name__ == "__main__":
    run(pathlib.Path(sys.argv[1]))
