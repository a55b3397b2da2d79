"""The database is the file in the data directory, whatever characters the path has."""

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from models.errors import StorageFull
from models.settings import Settings
from models.store import Store
from models.store.sqlite import dbapi
from tests.models.store.helpers import sqlite_only

pytestmark = sqlite_only

ODD = [
    "what?q",
    "p%2Fct",
    "a#b",
    "a b",
    "quo'te\"s",
    "Ünïcode 研究",
    "a&b=c;d",
    "file:x?mode=memory",
    ":memory:",
    "%",
    "~",
]
names = st.one_of(
    st.sampled_from(ODD),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=30).filter(
        lambda name: name not in (".", "..") and len(name.encode()) < 200
    ),
)
unhurried = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@unhurried
@given(name=names, by_url=st.booleans())
def test_the_database_is_where_the_data_directory_is(tmp_path: Path, name: str, by_url: bool) -> None:
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    url = f"sqlite:///{quote(str(folder / 'epochal.db'))}" if by_url else None
    store = Store(Settings(data_dir=tmp_path / "elsewhere" if by_url else folder, database_url=url))
    with store.writing() as session:
        session.execute(text("CREATE TABLE IF NOT EXISTS here (number INTEGER)"))
    store.backup(folder / f"copy of {name[:20]}.db")
    store.dispose()
    for file in (folder / "epochal.db", folder / f"copy of {name[:20]}.db"):
        with dbapi.connect(str(file)) as connection:
            assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("here",)]
        connection.close()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere", "/dev/null"])
def test_a_place_that_takes_no_folder_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    store = Store(Settings(data_dir=tmp_path / place))
    with pytest.raises(StorageFull, match="cannot be used as a folder"):
        store.migrate()
    store.dispose()
