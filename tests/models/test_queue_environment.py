"""The lab's queue is its own, whatever a shell holds that was set up for another project with Celery."""

import pytest

from models.queue import make_celery
from models.settings import Settings

THEIRS = "redis://their-broker.example:6379/3"


@pytest.mark.parametrize(
    "name", ["CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "BROKER_URL"]
)
def test_the_broker_is_the_labs(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, THEIRS)
    celery = make_celery(Settings(broker_url="redis://127.0.0.1:1/0"))
    for connection in (celery.connection_for_read(), celery.connection_for_write()):
        assert (connection.hostname, connection.port) == ("127.0.0.1", 1)


@pytest.mark.filterwarnings("error")
def test_no_configuration_of_theirs_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CELERY_LOADER", "default"), ("CELERY_CONFIG_MODULE", "theirs"), ("LOADER", "django")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "theirs.settings")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", THEIRS)
    celery = make_celery(Settings())
    assert celery.conf.task_default_queue == "experiments"
    assert celery.conf.result_backend is None
