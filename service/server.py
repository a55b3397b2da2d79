"""The API server process: `python -m service.server` runs uvicorn until SIGTERM or Ctrl-C."""

import gc
import logging
import resource
import sys

import uvicorn

from models.errors import EpochalError
from models.libc import glibc
from models.logs import configure_logs
from models.private import close_to_others, keep_private
from models.settings import Settings, get_settings, settings_or_exit
from models.store import Store, keys
from models.store.store import describe_database
from service.app import create_app
from service.catalogue.describing import shared_describing
from service.http.access import keys_needed
from service.http.prefix import set_prefix
from service.http.protocol import GuardedProtocol
from service.lab.address import announced, reachable_url

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 15
SHUTDOWN_SECONDS = 3
"""Time for running requests to finish at shutdown; event streams are closed at once."""
OPEN_FILES = 16_384
SWITCH_SECONDS = 0.0005
"""The interpreter's switch interval (sys.setswitchinterval). With Python's default of 5 ms and eight busy threads, the
event loop would wait 40 ms for the GIL after each system call, and /healthz take seconds."""

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
OWN_PAGES_BYTES = 1 << 20
NUM_ARENAS = 2


def serve(settings: Settings | None = None) -> None:
    """Run the server until SIGTERM or SIGINT."""
    keep_private()
    settings = settings or get_settings()
    configure_logs()
    sys.setswitchinterval(SWITCH_SECONDS)
    _configure_malloc()
    _allow_many_connections()
    set_prefix(settings.root_path)  # for answers by the protocol, outside the application
    _prepare_store(settings)
    with announced(settings.data_dir, reachable_url(settings.host, settings.port)):
        uvicorn.run(
            create_app(settings, on_start=_make_ready, on_stop=shared_describing().close),
            host=settings.host,
            port=settings.port,
            http=GuardedProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # service.http.proxies trusts configured proxies only
            workers=1,  # else WEB_CONCURRENCY, which other projects set, would be asked and more than 1 be refused
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )


def _make_ready() -> None:
    exempt_loaded_objects()
    shared_describing().start()


def exempt_loaded_objects() -> None:
    """Exempt loaded objects from garbage collection (gc.freeze).

    With half a million objects less to traverse, a collection is fast and frees what rendering leaves behind.
    """
    gc.collect()
    gc.freeze()


def _allow_many_connections() -> None:
    """Raise the soft limit of open files: a thousand clients and their database connections exceed the usual 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _configure_malloc() -> None:
    """Configure glibc's malloc to return large blocks to the system when freed, and to use few arenas.

    By default its mmap threshold grows with large blocks, which then stay in up to eight arenas per core. No effect
    on other C libraries (macOS, musl).
    """
    if (libc := glibc()) is not None:
        libc.mallopt(M_MMAP_THRESHOLD, OWN_PAGES_BYTES)
        libc.mallopt(M_ARENA_MAX, NUM_ARENAS)


def _prepare_store(settings: Settings) -> None:
    """Migrate the database, and create and print the first API key where keys are required and none exists.

    An unusable database gives one log line and exit code 1, where the application's startup would end in a traceback.
    """
    try:
        if said := close_to_others(settings.data_dir):
            logger.warning("%s", said)
        store = Store(settings)
        store.migrate()
        key = None
        if keys_needed(settings):
            with store.writing() as session:
                key = keys.create_first(session)
        store.dispose()
    except EpochalError as error:
        logger.error("%s: %s (%s)", error.title, error.detail, describe_database(settings))
        sys.exit(1)
    except OSError as error:
        logger.error("%s cannot be used as the data directory: %s", settings.data_dir, error.strerror)
        sys.exit(1)
    if key:
        sys.stdout.write(f"API key (shown once, stored hashed): {key}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve(settings_or_exit())
