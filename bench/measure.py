"""Runs one command and says what it cost; medians and spreads of several runs."""

import concurrent.futures
import os
import statistics
import subprocess
import tempfile
import time


class Failed(Exception):
    pass


def timed(argv, env=None, cwd=None):
    """Wall and CPU seconds, peak RSS in bytes, and standard output. A command that fails ends the bench: its time means nothing."""
    os.sync()  # nobody's dirty pages are written in somebody else's time
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = time.monotonic()
        child = subprocess.Popen(argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if child.returncode != 0:
            raise Failed(f"{' '.join(argv)}: ended with {child.returncode}\n{out.read()[-2000:]}{err.read()[-2000:]}")
        return {
            "seconds": seconds,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "rss_bytes": usage.ru_maxrss * 1024,
            "stdout": out.read(),
        }


def warm(path):
    """Reads a file once, so that every tool finds it in the page cache."""
    with open(path, "rb", buffering=0) as f:
        while f.read(1 << 22):
            pass


def spread(values):
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": len(values)}


def tree_bytes(path):
    """Sum of the sizes of all files below a directory."""
    return sum(
        os.path.getsize(os.path.join(directory, name)) for directory, _, names in os.walk(path) for name in names
    )


def put_bytes_per_s(directory, count_bytes=256 << 20, object_bytes=16 << 20, in_flight=4):
    """How fast objects of 16 MiB can be made durable here: write and fsync, as many at once as windlass has under way."""
    block = os.urandom(object_bytes)
    paths = [os.path.join(directory, f"put-{number}") for number in range(count_bytes // object_bytes)]

    def put(path):
        with open(path, "wb", buffering=0) as f:
            f.write(block)
            os.fsync(f.fileno())

    os.sync()
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(in_flight) as pool:
        list(pool.map(put, paths))
    seconds = time.monotonic() - started
    for path in paths:
        os.unlink(path)
    return count_bytes / seconds
