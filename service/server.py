"""The API as a process: `python -m service.server` serves it until SIGTERM or Ctrl-C."""

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
from service.http.access import keys_needed
from service.http.prefix import set_prefix
from service.http.protocol import GuardedProtocol
from service.lab.address import announced, reachable_url

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 15
SHUTDOWN_SECONDS = 3
"""How long requests may still take once the server stops; event streams end at once by themselves."""
OPEN_FILES = 16_384
SWITCH_SECONDS = 0.0005
"""How long a thread that computes keeps the interpreter while another wants it. Python's own 5 ms, times eight busy
threads, is what the event loop would wait after each of its own system calls: /healthz then takes seconds."""

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
OWN_PAGES_BYTES = 1 << 20
NUM_ARENAS = 2


def serve(settings: Settings | None = None) -> None:
    """Serve until told to stop."""
    keep_private()
    settings = settings or get_settings()
    configure_logs()
    sys.setswitchinterval(SWITCH_SECONDS)
    _give_memory_back()
    _allow_many_connections()
    set_prefix(settings.root_path)  # for what the protocol answers by itself
    _prepare_store(settings)
    with announced(settings.data_dir, reachable_url(settings.host, settings.port)):
        uvicorn.run(
            create_app(settings, on_start=keep_what_is_loaded),
            host=settings.host,
            port=settings.port,
            http=GuardedProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # service.http.proxies believes those that are named, and nobody else
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )


def keep_what_is_loaded() -> None:
    """Exempt what is loaded from garbage collection: with half a million objects less to look at, the collector runs
    often enough to free what pictures leave behind."""
    gc.collect()
    gc.freeze()


def _allow_many_connections() -> None:
    """Raise the soft limit of open files: a thousand clients and their database connections pass the usual 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _give_memory_back() -> None:
    """Have glibc return a picture's pixels to the system when they are freed, and share its heaps between threads.

    By itself it learns from large blocks to keep them, in up to eight heaps a core. Elsewhere (macOS, musl) nothing is
    done.
    """
    if (libc := glibc()) is not None:
        libc.mallopt(M_MMAP_THRESHOLD, OWN_PAGES_BYTES)
        libc.mallopt(M_ARENA_MAX, NUM_ARENAS)


def _prepare_store(settings: Settings) -> None:
    """Bring the schema up to date; at the first start of a lab that others can reach, make a key and show it this once.

    A database that cannot be used is one line and exit code 1, where the application's start would end in a traceback.
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
