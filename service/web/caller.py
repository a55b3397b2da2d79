"""Authentication of page requests: as for the API, but a browser without a session is redirected to the login form."""

from typing import Annotated

from fastapi import Depends, Request

from models.errors import Unauthorized
from service.http.access import Caller, LoginNeeded, check_role
from service.http.dependencies import get_authenticator
from service.http.routing import CALLERS


async def page_caller(request: Request) -> Caller:
    """Authenticate the request of a page. Raises LoginNeeded for a browser without a session."""
    try:
        caller = await (await get_authenticator(request)).identify(request)
    except Unauthorized as error:
        raise LoginNeeded(error.detail) from error
    check_role(caller, request)
    return caller


PageCaller = Annotated[Caller, Depends(page_caller)]
CALLERS.add(page_caller)
