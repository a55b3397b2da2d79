"""Settings are read in one form by every process; what cannot be used is named in one message, without its secrets."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from models import devices, urls
from models.client_settings import ClientSettings
from models.devices import check_device, trains_on_cpu
from models.errors import InvalidSettings
from models.settings import NEVER_SHOWN, Settings, read_settings
from models.urls import mask
from service.cli.main import app
from service.cli.options import read_client_settings


@pytest.fixture(autouse=True)
def _driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL's driver counts as installed."""
    monkeypatch.setattr(urls, "find_spec", lambda name: ModuleSpec(name, None))


def read(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(f"EPOCHAL_{name.upper()}", value)
    return read_settings()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("lab.example", ["lab.example"]),
        ("lab.example,10.0.0.7", ["lab.example", "10.0.0.7"]),
        (" Lab.Example , other ,", ["lab.example", "other"]),
        ('["lab.example", "other"]', ["lab.example", "other"]),
        ("::1", ["[::1]"]),
        ("[::1],[fe80::1]", ["[::1]", "[fe80::1]"]),
        ("*", ["*"]),
        ("bücher.example", ["xn--bcher-kva.example"]),
        ("lab.example.", ["lab.example"]),
    ],
)
def test_a_list_is_one_name_or_names_with_commas_or_json(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: list[str]
) -> None:
    assert read(monkeypatch, allowed_hosts=value).allowed_hosts == expected


@pytest.mark.parametrize("blank", ["", "  ", "\n"])
def test_a_blank_variable_is_unset_whichever_it_is(monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    monkeypatch.delenv("EPOCHAL_DATA_DIR")
    unset = read_settings()
    names = [name for name in Settings.model_fields if name not in NEVER_SHOWN or not blank]
    assert read(monkeypatch, **dict.fromkeys(names, blank)) == unset


WRONG = [
    ("port", "tcp://10.96.0.1:8000", "from 0 to 65,535"),
    ("port", "65536", "from 0 to 65,535"),
    ("workers", "two", "a whole number from 0 to 64"),
    ("workers", "-1", "a whole number from 0 to 64"),
    ("auth", "maybe", "true or false"),
    ("lease_seconds", "nan", "a number above 0"),
    ("stall_seconds", "inf", "a number above 0"),
    ("max_upload_mb", "0", "a whole number of at least 1"),
    ("database_url", "nonsense", "postgresql://"),
    ("database_url", "mysql://localhost/lab", "postgresql://"),
    ("database_url", "postgresql+asyncpg://localhost/lab", "postgresql://"),
    ("database_url", "postgresql://", "postgresql://"),
    ("database_url", "postgresql://localhost:many/lab", "a port is a number"),
    ("database_url", "postgresql://db..example/lab", "1 to 63 characters"),
    ("database_url", f"postgresql://db,{'a' * 64}.example/lab", "1 to 63 characters"),
    ("database_url", "sqlite://", "needs a file"),
    ("database_url", "sqlite:///:memory:", "needs a file"),
    ("database_url", "sqlite:///file:x?mode=memory&uri=true", "needs a file"),
    ("broker_url", "localhost:6379", "redis://"),
    ("broker_url", "http://localhost:6379", "redis://"),
    ("broker_url", "amqp://guest@localhost//", "redis://"),
    ("broker_url", "redis://", "redis://"),
    ("broker_url", "redis://localhost:6379/lab", "number of a database"),
    ("broker_url", "redis://localhost:six", "a port is a number"),
    ("broker_url", "redis://localhost?timeout=3", "ssl_cert_reqs"),
    ("broker_url", "redis+socket://", "redis+socket:///"),
    ("broker_url", f"redis://:x@{'a' * 64}/0", "1 to 63 characters"),
    ("device", "gpu", "auto, cpu, cuda or cuda:N"),
    ("device", "cuda:x", "auto, cpu, cuda or cuda:N"),
    ("host", "http://0.0.0.0", "without scheme and port"),
    ("host", "0.0.0.0:8000", "EPOCHAL_PORT"),
    ("url", "lab.example", "http://HOST:PORT"),
    ("url", "http://[::1", "http://HOST:PORT"),
    ("url", "http://lab.example:99999", "a port is a number"),
    ("url", "file:///etc/passwd", "http://HOST:PORT"),
    ("url", "http://lab..example", "1 to 63 characters"),
    ("allowed_origins", "lab.example", "not an origin"),
    ("trusted_proxies", "10.0.0.0/99", "neither an address nor a network"),
    ("root_path", "/a b", "not a path prefix"),
    ("allowed_hosts", "https://lab.example", "without scheme and port"),
    ("allowed_hosts", "lab.example:8000", "without scheme and port"),
    ("allowed_hosts", "*.example", "without scheme and port"),
    ("allowed_hosts", "[1, 2]", "names with commas"),
]


@pytest.mark.parametrize(("name", "value", "form"), WRONG)
def test_what_cannot_be_used_is_one_line_with_variable_value_and_form(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, form: str
) -> None:
    with pytest.raises(InvalidSettings) as caught:
        read(monkeypatch, **{name: value})
    (line,) = caught.value.detail.splitlines()
    assert line.startswith(f"EPOCHAL_{name.upper()} is ")
    assert form in line
    assert mask(value)[:12] in line


def test_each_wrong_variable_has_its_line_and_a_flag_is_named_as_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHAL_PORT", "x")
    monkeypatch.setenv("EPOCHAL_AUTH", "maybe")
    with pytest.raises(InvalidSettings) as caught:
        read_settings(broker_url="localhost")
    assert sorted(line.split()[0] for line in caught.value.detail.splitlines()) == [
        "--broker-url",
        "EPOCHAL_AUTH",
        "EPOCHAL_PORT",
    ]


def test_the_port_that_kubernetes_sets_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSettings) as caught:
        read(monkeypatch, port="tcp://10.96.0.1:8000", port_8000_tcp_addr="10.96.0.1", service_host="10.96.0.1")
    assert "enableServiceLinks" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "mysql://ada:hunter2@db/lab"),
        ("database_url", "postgresql://ada:hunter2@db:many/lab"),
        ("database_url", "postgresql://ada:hun@hunter2@@@db/lab"),
        ("broker_url", "ada:hunter2@localhost:6379"),
        ("broker_url", "redis://:hunter2@localhost/x"),
        ("broker_url", "redis://:hunter2#1@localhost/0"),
        ("broker_url", "redis://localhost:hunter2"),
        ("broker_url", "redis://localhost/0?password=hunter2"),
        ("url", "ftp://ada:hunter2@lab.example"),
        ("url", "http://ada:hunter2@[::1"),
        ("api_key", "hunter2\u2019"),
        ("api_key", "hunter2\n"),
    ],
)
def test_a_message_holds_no_password_and_no_key(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        read(monkeypatch, **{name: value})
    assert "hunter2" not in f"{caught.value.detail} {caught.value.fix} {caught.value.__cause__}"


@given(
    user=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="@"), max_size=8),
    password=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
)
def test_an_address_is_shown_without_its_password_whatever_stands_in_it(user: str, password: str) -> None:
    shown = mask(f"redis://{user}:<{password}>@broker:6379/0")
    assert shown == "redis://***@broker:6379/0"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("postgres://u:p@db/lab", "postgresql+psycopg://u:p@db/lab"),
        ("postgresql://db", "postgresql+psycopg://db"),
        ("postgresql+psycopg://u:p/w@[::1]:5433/lab?sslmode=require", None),
        ("postgresql:///lab?host=/run/postgresql", "postgresql+psycopg:///lab?host=/run/postgresql"),
        ("postgresql+psycopg://a.example,b.example./lab", None),
        (f"postgresql+psycopg://{'%2Frun' * 20}/lab", None),
        ("sqlite:////data/a%20b.db", None),
    ],
)
def test_a_database_is_named_with_the_driver_that_is_used(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: str | None
) -> None:
    assert read(monkeypatch, database_url=value).database_url == (expected or value)


def test_a_missing_driver_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "find_spec", lambda name: None)
    with pytest.raises(InvalidSettings, match=r"psycopg\[binary\]"):
        read(monkeypatch, database_url="postgresql://db/lab")


@pytest.mark.parametrize(
    "value",
    [
        "redis://localhost",
        "redis://localhost/",
        "redis://:p%40ss@[::1]:6380/15",
        "rediss://u:p@broker:6380/0?ssl_cert_reqs=none",
        "redis+socket:///run/a.sock?virtual_host=3",
        "unix:///run/a.sock?db=3",
        "redis+socket://:secret@/run/a.sock",
    ],
)
def test_brokers_that_are_taken(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    assert read(monkeypatch, broker_url=value).broker_url == value


def test_paths_are_absolute_wherever_they_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    settings = read(monkeypatch, data_dir="~/lab", cache_dir="cache", database_url="sqlite:///~/own%3F.db")
    assert settings.data_dir == tmp_path / "home" / "lab"
    assert settings.cache_dir == tmp_path / "cache"
    assert settings.database_url == f"sqlite:///{tmp_path}/home/own%3F.db"
    assert read_settings(data_dir="~/flag").data_dir == tmp_path / "home" / "flag"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for unusable in ("~nobody-has-this-name/lab", str(tmp_path / "loop" / "lab"), "latin-\udce9"):
        with pytest.raises(InvalidSettings, match="EPOCHAL_DATA_DIR"):
            read(monkeypatch, data_dir=unusable)


LAB_URLS = [None, "", "  ", " http://lab/ ", "lab.example"]
KEYS = [None, "", " a-key"]
FOLDERS = [None, " ", " ~/here "]


@pytest.mark.parametrize("other", [{}, {"EPOCHAL_PORT": "many"}])
def test_what_a_client_needs_is_read_as_all_settings_are(
    monkeypatch: pytest.MonkeyPatch, other: dict[str, str]
) -> None:
    """With no variable but its own, without pydantic; with others, by it."""

    def client(**flags: Any) -> ClientSettings:
        return read_client_settings(**{"url": None, "api_key": None, "data_dir": None, **flags})

    def full(**flags: Any) -> ClientSettings:
        found = read_settings(**flags)
        given = found.model_fields_set & {"url", "api_key", "data_dir"}
        return ClientSettings(found.url, found.api_key, found.data_dir, frozenset(given))

    def outcome(read: Callable[..., ClientSettings], **flags: Any) -> ClientSettings | str:
        try:
            return read(**flags)
        except InvalidSettings as error:
            return error.detail

    for name in [name for name in os.environ if name.startswith("EPOCHAL_")]:
        monkeypatch.delenv(name)
    for name, value in other.items():
        monkeypatch.setenv(name, value)
    names = ("EPOCHAL_URL", "epochal_api_key", "EPOCHAL_DATA_DIR")
    for values in product(LAB_URLS, KEYS, FOLDERS):
        with monkeypatch.context() as patched:
            for name, value in zip(names, values, strict=True):
                if value is not None:
                    patched.setenv(name, value)
            for flags in ({}, {"url": "flag"}, {"data_dir": Path("flag"), "api_key": "b"}):
                assert outcome(client, **flags) == outcome(full, **flags), (values, flags)


def test_a_client_with_the_usual_settings_does_not_wait_for_pydantic(tmp_path: Path) -> None:
    program = (
        "import sys; from service.cli.options import read_client_settings; "
        "read_client_settings(None, None, None); assert 'pydantic' not in sys.modules"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EPOCHAL_")}
    subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "EPOCHAL_URL": "http://lab", "PYTHONPATH": os.getcwd()},
        cwd=tmp_path,
        check=True,
    )


def test_every_setting_survives_the_way_through_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = read(monkeypatch, allowed_hosts="a,[::1]", data_dir=str(tmp_path / "a ?%#"), host="[::1]", device="CPU")
    for name, value in settings.model_dump(mode="json", exclude_none=True).items():
        monkeypatch.setenv(f"EPOCHAL_{name.upper()}", value if isinstance(value, str) else json.dumps(value))
    assert read_settings() == settings


def test_a_gpu_that_is_not_there_is_refused_and_what_is_always_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    check_device("auto")
    check_device("cpu")
    with pytest.raises(InvalidSettings, match=r"cuda:7.*cpu and auto do"):
        check_device("cuda:7")
    assert trains_on_cpu("auto")
    assert trains_on_cpu("cpu")
    assert not trains_on_cpu("cuda")


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        (["worker"], {"EPOCHAL_WORKERS": "two"}),
        (["service.server"], {"EPOCHAL_WORKERS": "two"}),
        (["celery", "-A", "worker.app", "worker"], {"EPOCHAL_DEVICE": "cuda:7", "CUDA_VISIBLE_DEVICES": ""}),
        (["service.cli.main", "data", "fetch"], {"EPOCHAL_WORKERS": "two"}),
        (["service.cli.main", "list"], {"EPOCHAL_WORKERS": "two"}),
    ],
)
def test_every_process_ends_with_the_message_and_exit_code_2(
    command: list[str], variables: dict[str, str], tmp_path: Path
) -> None:
    environment = {**os.environ, "EPOCHAL_DATA_DIR": str(tmp_path), "PYTHONPATH": os.getcwd(), **variables}
    ended = subprocess.run(
        [sys.executable, "-m", *command], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2, ended.stderr
    said = ended.stderr.strip()
    assert next(iter(variables)) in said
    assert "Traceback" not in said
    assert len(said.splitlines()) <= 3


@pytest.mark.parametrize("command", ["list", "keys list", "backup x.tar", "restore x.tar", "demo", "up", "show 1"])
def test_every_command_ends_with_the_message_and_exit_code_2(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPOCHAL_BROKER_URL", "amqp://ada:hunter2@localhost//")
    ended = CliRunner().invoke(app, command.split())
    assert ended.exit_code == 2
    assert "EPOCHAL_BROKER_URL is 'amqp://***@localhost//' and must be redis://" in " ".join(ended.stderr.split())
    assert "hunter2" not in ended.output
    assert list(tmp_path.iterdir()) == []


def test_a_lab_with_workers_does_not_start_for_a_gpu_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "COUNT_GPUS", "print(0, 'none')")
    monkeypatch.setenv("EPOCHAL_DEVICE", "cuda")
    ended = CliRunner().invoke(app, ["up", "--data-dir", str(tmp_path / "lab"), "--port", "0"])
    assert ended.exit_code == 2
    assert "EPOCHAL_DEVICE is 'cuda'" in ended.stderr
    assert not (tmp_path / "lab").exists()
