"""A study in a running lab, from the command: its rows are trained, compared and reported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from service.cli.client import Client
from service.lab.lab import Lab
from tests.system.experiments import small_spec

EPOCHAL = str(Path(sys.executable).with_name("epochal"))


@pytest.mark.timeout(240)
def test_a_study_is_run_watched_and_reported_and_the_same_command_finds_it_again(
    lab: Lab, client: Client, tmp_path: Path
) -> None:
    study = {
        "title": "A small study",
        "base": small_spec(epochs=1, dataset={"name": "cifar10", "train_limit": 200, "val_limit": 100}),
        "variants": [
            {"key": "narrow", "overrides": {"model": "narrow"}},
            {"key": "exploding", "overrides": {"optimizer.lr": 100.0, "clip_grad_norm": None}},
        ],
        "combine": ["ensemble"],
        "robustness": True,
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))

    def epochal(*arguments: str) -> str:
        command = [EPOCHAL, "study", *arguments, "--url", lab.url]
        result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=110, check=False)
        assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
        return result.stdout

    shown = epochal("run", "study.yaml", "--watch", "--report", "report.html")
    assert "narrow" in shown
    assert "saved report.html" in shown
    page = (tmp_path / "report.html").read_text()
    assert "A small study" in page
    assert "data:image/png;base64," in page  # the kernels
    found = json.loads(epochal("run", "study.yaml", "--json"))
    assert found["status"] == "completed"
    assert [row["status"] in ("completed", "diverged") for row in found["rows"]] == [True] * 4
    assert found["rows"][3]["key"] == "ensemble:"
    assert found["rows"][3]["difference"]["method"] == "McNemar"
    assert [row["row"] for row in found["robustness"] if row["clean"] is not None][:2] == ["base", "narrow"]
    document = client.get(f"/studies/{found['id']}")
    assert document["rows"][1]["difference"]["method"] == "McNemar"
    assert document["spent_seconds"] > 0
