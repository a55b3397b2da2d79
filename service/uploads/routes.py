"""Routes of resumable uploads by the tus protocol; POST /datasets?upload=ID uses a finished one."""

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Request, Response

from models import uploads
from models.errors import NotFound
from models.joined_uploads import FINAL, PARTIAL, find_parts, join_uploads
from models.plain import JsonObject
from models.settings import Settings
from models.store import Store
from models.uploads import UploadNote
from service.http.access import Caller
from service.http.dependencies import CallerDep, SettingsDep, StoreDep
from service.http.disk_quotas import check_disk_quota, check_num_uploads, check_upload_size
from service.http.documents import API
from service.http.errors import problems
from service.http.prefix import with_prefix
from service.uploads import tus

router = APIRouter(prefix="/uploads", tags=["uploads"], route_class=tus.TusRoute)

UploadId = Annotated[str, Path(description="The id at the end of the upload's address.", max_length=100)]
HEADERS: JsonObject = {
    name: {"schema": {"type": "string"}, "required": True} for name in ("Tus-Resumable", "Upload-Offset")
}
BODY = {"requestBody": {"content": {tus.BODY_TYPE: {"schema": {"type": "string", "format": "binary"}}}}}
LOCATION = {"Location": {"schema": {"type": "string"}, "required": True}}


@router.options("", status_code=204, response_class=Response, responses=problems(401))
async def describe_uploads(settings: SettingsDep) -> Response:
    """Read the supported version and extensions of tus, and the largest upload."""
    headers = {
        "Tus-Resumable": tus.VERSION,
        "Tus-Version": tus.VERSION,
        "Tus-Extension": tus.EXTENSIONS,
        "Tus-Max-Size": str(settings.max_dataset_mb * 1_000_000),
    }
    return Response(status_code=204, headers=headers)


@router.post(
    "",
    status_code=201,
    response_class=Response,
    openapi_extra=BODY,
    responses={
        201: {"description": "Begun; Location is its address.", "headers": {**LOCATION, **HEADERS}},
        **problems(401, 403, 404, 409, 412, 413, 415, 422, 429, 507),
    },
)
async def create_upload(request: Request, caller: CallerDep, settings: SettingsDep, store: StoreDep) -> Response:
    """Create an upload of Upload-Length bytes; a body, if there is one, is its first part.

    With Upload-Concat `final;` and addresses it is made of uploads that were begun as `partial`.
    """
    tus.check_version(request)
    metadata = tus.metadata_in(request)
    concat = request.headers.get("upload-concat", "")
    if concat.startswith(FINAL):
        note = await to_thread.run_sync(_join, settings, caller, metadata, concat)
        return _created(settings, note, note.length)
    if concat not in ("", PARTIAL):
        find_parts(settings.uploads_dir, concat, caller.name or "")  # refuses it
    length = tus.length_in(request)
    check_upload_size(settings, length)
    note = await to_thread.run_sync(_create, settings, store, caller, length, metadata, concat)
    offset = 0
    if request.headers.get("content-type") == tus.BODY_TYPE:
        offset = await tus.append_body(request, settings.uploads_dir, note, 0)
    return _created(settings, note, offset)


@router.get(
    "/{upload_id}",
    response_class=Response,
    responses={
        200: {
            "description": "Upload-Offset is how many bytes have arrived. HEAD answers the same.",
            "headers": {**HEADERS, "Upload-Length": {"schema": {"type": "string"}, "required": True}},
        },
        **problems(401, 404, 412, 422),
    },
)
def get_upload(upload_id: UploadId, request: Request, caller: CallerDep, settings: SettingsDep) -> Response:
    """Read an upload's offset, to resume from there."""
    tus.check_version(request)
    note = find(settings, upload_id, caller)
    answer = tus.state(settings.uploads_dir, note, uploads.offset_of(settings.uploads_dir, note), status_code=200)
    answer.headers["Upload-Length"] = str(note.length)
    if note.metadata:
        answer.headers["Upload-Metadata"] = note.metadata
    return answer


@router.patch(
    "/{upload_id}",
    status_code=204,
    response_class=Response,
    openapi_extra=BODY,
    responses={
        204: {"description": "Stored; Upload-Offset is how many bytes there are now.", "headers": HEADERS},
        **problems(401, 403, 404, 409, 412, 413, 415, 422, 429, 507),
    },
)
async def append_to_upload(upload_id: UploadId, request: Request, caller: CallerDep, settings: SettingsDep) -> Response:
    """Send the bytes that follow Upload-Offset."""
    tus.check_version(request)
    note = await to_thread.run_sync(find, settings, upload_id, caller)
    offset = await tus.append_body(request, settings.uploads_dir, note, tus.number_in(request, "Upload-Offset"))
    return tus.state(settings.uploads_dir, note, offset)


@router.post("/{upload_id}", include_in_schema=False)
async def append_by_post(upload_id: UploadId, request: Request, caller: CallerDep, settings: SettingsDep) -> Response:
    """Use the method in X-HTTP-Method-Override, for clients behind a proxy that blocks PATCH and DELETE."""
    method = request.headers.get("x-http-method-override", "")
    if method == "PATCH":
        return await append_to_upload(upload_id, request, caller, settings)
    if method == "DELETE":
        return await to_thread.run_sync(delete_upload, upload_id, request, caller, settings)
    raise NotFound("an upload does not accept POST", fix="send PATCH, or X-HTTP-Method-Override: PATCH")


@router.delete("/{upload_id}", status_code=204, response_class=Response, responses=problems(401, 403, 404, 412, 422))
def delete_upload(upload_id: UploadId, request: Request, caller: CallerDep, settings: SettingsDep) -> Response:
    """Delete an upload and the bytes received."""
    tus.check_version(request)
    uploads.remove_upload(settings.uploads_dir, find(settings, upload_id, caller))
    return Response(status_code=204, headers={"Tus-Resumable": tus.VERSION})


def find(settings: Settings, upload_id: str, caller: Caller) -> UploadNote:
    """An upload of this caller. Raises NotFound."""
    return uploads.find_upload(settings.uploads_dir, upload_id, caller.name or "")


def _create(settings: Settings, store: Store, caller: Caller, length: int, metadata: str, concat: str) -> UploadNote:
    check_num_uploads(settings, caller)
    with store.reading() as session:
        check_disk_quota(session, settings, caller, length)
    return uploads.create_upload(settings.uploads_dir, length, caller.name or "", metadata, concat)


def _join(settings: Settings, caller: Caller, metadata: str, concat: str) -> UploadNote:
    owner = caller.name or ""
    parts = find_parts(settings.uploads_dir, concat, owner)
    most = settings.max_dataset_mb * 1_000_000
    return join_uploads(settings.uploads_dir, parts, owner, metadata, concat, most)


def _created(settings: Settings, note: UploadNote, offset: int) -> Response:
    answer = tus.state(settings.uploads_dir, note, offset, status_code=201)
    answer.headers["Location"] = with_prefix(f"{API}/uploads/{note.id}")
    return answer
