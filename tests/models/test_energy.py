"""Joules from the processor's counters, which begin again when they are full."""

from pathlib import Path

from models.energy import joules_used, read_counters


def package(folder: Path, name: str, microjoules: int) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")
    (folder / name / "max_energy_range_uj").write_text("10000000\n")


def test_packages_are_added_and_their_parts_are_not(tmp_path: Path) -> None:
    for name, value in (("intel-rapl:0", 1_000_000), ("intel-rapl:1", 0), ("intel-rapl:0:0", 5)):
        package(tmp_path, name, value)
    before = read_counters(tmp_path)
    package(tmp_path, "intel-rapl:0", 3_000_000)
    package(tmp_path, "intel-rapl:1", 500_000)
    package(tmp_path, "intel-rapl:0:0", 9_000_000)
    assert joules_used(before, read_counters(tmp_path)) == 2.5


def test_a_counter_that_began_again_is_followed(tmp_path: Path) -> None:
    package(tmp_path, "intel-rapl:0", 9_000_000)
    before = read_counters(tmp_path)
    package(tmp_path, "intel-rapl:0", 1_000_000)
    assert joules_used(before, read_counters(tmp_path)) == 2.0


def test_a_machine_that_tells_nothing_has_no_figure(tmp_path: Path) -> None:
    assert joules_used(read_counters(tmp_path), read_counters(tmp_path)) is None
