"""Both services against their own OpenAPI descriptions, by schemathesis."""

import pathlib
import re
import subprocess
import sys

import httpx
import pytest

from jaxcxr.deploy.serve.limits import Limits
from tests.deploy.serve.conftest import serving

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["xray_bundle", "pose_bundle"])
def test_the_server_does_what_its_description_says(name, request, tmp_path):
    pytest.importorskip("schemathesis", reason="no schemathesis (pip)")
    with serving(request.getfixturevalue(name), Limits(upload=100_000)) as address:
        done = subprocess.run(
            [
                pathlib.Path(sys.executable).with_name("schemathesis"), "run",
                f"{address}/openapi.json", "--phases=coverage,fuzzing", "--max-examples=15",
                "--seed=1", "--no-color", "--generation-database=none",
                # No schema can say which bytes are a radiograph, or which numbers are people.
                "--exclude-checks=positive_data_acceptance",
            ],
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout
        cases = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
        assert cases[1] == cases[2]
        assert int(cases[1]) > 60
        assert httpx.get(f"{address}/api/health").json() == {"status": "ok", "requests": 0}
