"""A request for a picture of a study: reads the study's results, and responds with the rendering of some of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request, Response

from models.store import Store
from models.store import studies as stored
from models.studies.results import StudyResult
from service.http.dependencies import RenderingsDep, SettingsDep, StoreDep
from service.http.pictures import MEDIA_TYPES, Picture, picture_headers
from service.http.rendered import Renderings
from service.http.routing import Id
from service.studies.read import read_result


@dataclass(frozen=True, slots=True)
class PictureRequest:
    """A request for a picture of a study, in one of the formats."""

    request: Request
    study_id: int
    picture: Picture
    store: Store
    experiments_dir: Path
    renderings: Renderings

    def read(self) -> StudyResult:
        """Read the study's results. Raises NotFound."""
        with self.store.reading() as session:
            return read_result(session, stored.get(session, self.study_id), self.experiments_dir)

    def respond(self, key: tuple[object, ...], render: Callable[..., bytes]) -> Response:
        """Respond with what `render(format=...)` returns; `key` holds everything that the picture depends on."""
        return self.renderings.respond(
            self.request,
            key,
            MEDIA_TYPES[self.picture],
            lambda: render(format=self.picture.value),
            picture_headers(self.picture),
        )


async def _picture_request(
    study_id: Id, picture: Picture, request: Request, store: StoreDep, settings: SettingsDep, renderings: RenderingsDep
) -> PictureRequest:
    return PictureRequest(request, study_id, picture, store, settings.experiments_dir, renderings)


PictureRequestDep = Annotated[PictureRequest, Depends(_picture_request)]
