"""Jobs for the nursery's tests; the nursery imports this module instead of worker.processes.child."""

import os
import signal
import subprocess
import sys
import time

from worker.processes.channel import Channel

IMPORTED_IN = os.getpid()


def run_job(orders: int, reports: int) -> int:
    channel = Channel(orders, reports)
    job = channel.job()
    return globals()[job["do"]](channel, **job.get("with", {}))


def describe(channel: Channel) -> int:
    """Tell what a job can see of itself."""
    channel.report_outcome(
        {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "group": os.getpgid(0),
            "session": os.getsid(0),
            "imported_in": IMPORTED_IN,
            "default_signals": all(
                signal.getsignal(signum) in (signal.SIG_DFL, signal.default_int_handler)
                for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
            ),
            "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
        }
    )
    return 7


def die_of(channel: Channel, signum: int) -> int:
    os.kill(os.getpid(), signum)
    return 0


def wait_for_order(channel: Channel) -> int:
    channel.report({"ready": True})
    while (word := channel.order()) is None:
        time.sleep(0.01)
    channel.report_outcome({"order": word})
    return 0


def flood(channel: Channel, count: int) -> int:
    """Report more than a pipe holds, to a reader that does not read."""
    for number in range(count):
        channel.report({"number": number, "filler": "x" * 200})
    channel.report_outcome({"done": count, "long": "y" * 20_000})
    return 0


def have_a_child(channel: Channel) -> int:
    """Leave a grandchild behind that would live on."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    channel.report_outcome({"grandchild": process.pid})
    return 0


def sleep(channel: Channel) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel.report({"ready": True})
    time.sleep(600)
    return 0
