"""Processes of the project import its own packages, whatever PYTHONPATH and the working directory hold."""

import os
import subprocess
from pathlib import Path

from models.imports import HOME, module_command, own_packages_first


def test_a_module_of_ours_is_run_where_others_have_its_packages_names(tmp_path: Path) -> None:
    """As a package, as a module, and as a folder without a file."""
    for name in ("models", "worker"):
        (tmp_path / name).mkdir()
    (tmp_path / "models" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "service.py").write_text("raise SystemExit('the wrong one')")
    environment = own_packages_first({**os.environ, "PYTHONPATH": str(tmp_path)})
    command = module_command("service.cli.main", "data", "--help")
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "fetch" in ran.stdout


def test_what_others_put_on_pythonpath_is_kept_behind_and_the_working_directory_is_left_out() -> None:
    found = own_packages_first({"PYTHONPATH": f"/theirs{os.pathsep}{os.pathsep}{HOME}", "KEPT": "1"})
    assert found["PYTHONPATH"] == f"{HOME}{os.pathsep}/theirs"
    assert found["KEPT"] == "1"
    assert own_packages_first(found) == found
