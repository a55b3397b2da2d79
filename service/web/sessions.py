"""Routes of login and logout of the pages."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from models.errors import EpochalError, UnsupportedMedia
from service.http.access import (
    FORM_COOKIE,
    FORM_SECONDS,
    SESSION_COOKIE,
    SESSION_SECONDS,
    Authenticator,
    delete_cookie,
    set_cookie,
)
from service.http.dependencies import AuthenticatorDep
from service.http.prefix import prefix, with_prefix
from service.http.routing import StrictRoute
from service.web.rendering import render

MAX_FIELD_BYTES = 4096

router = APIRouter(route_class=StrictRoute, include_in_schema=False)


@router.get("/login")
async def show_login(
    request: Request, authenticator: AuthenticatorDep, target: Annotated[str, Query(alias="next", max_length=500)] = "/"
) -> Response:
    """Show the login form."""
    if not authenticator.needed:
        return RedirectResponse(_own_path(target), status_code=303)
    return _form(request, authenticator, target)


@router.post("/login")
async def log_in(request: Request, authenticator: AuthenticatorDep) -> Response:
    """Create a session from a key, and redirect."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise UnsupportedMedia("the login form must be sent as application/x-www-form-urlencoded")
    form = await request.form(max_files=0, max_fields=5, max_part_size=MAX_FIELD_BYTES)
    target = str(form.get("next", "/"))
    try:
        authenticator.check_form_token(str(form.get("token", "")), request.cookies.get(FORM_COOKIE, ""))
        cookie = await authenticator.log_in(str(form.get("key", "")), request)
    except EpochalError as error:
        return _form(request, authenticator, target, error)
    response = RedirectResponse(_own_path(target), status_code=303)
    set_cookie(response, SESSION_COOKIE, cookie, request, SESSION_SECONDS)
    delete_cookie(response, FORM_COOKIE)
    return response


@router.post("/logout")
async def log_out(request: Request, authenticator: AuthenticatorDep) -> Response:
    """End the session, in the database and in the browser."""
    await authenticator.log_out(request)
    response = RedirectResponse(with_prefix("/login"), status_code=303)
    delete_cookie(response, SESSION_COOKIE)
    return response


def _form(request: Request, authenticator: Authenticator, target: str, error: EpochalError | None = None) -> Response:
    token = authenticator.form_token()
    response = render(
        "login.html",
        status_code=error.status if error else 200,
        caller=None,
        token=token,
        next=_own_path(target),
        error=error.detail if error else None,
    )
    set_cookie(response, FORM_COOKIE, token, request, FORM_SECONDS)
    return response


def _own_path(target: str) -> str:
    """Return a redirect target within this lab; anything that a browser could take for another site becomes /."""
    if not target.startswith("/") or target.startswith(("//", "/\\")):
        return with_prefix("/")
    return target if f"{target}/".startswith(f"{prefix()}/") else with_prefix(target)
