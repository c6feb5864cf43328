"""The machine's own limits, measured in the same run by the benches that stand beside the code."""

import json
import os
import subprocess


BENCHES = {"ceilings": "windlass", "diff": "windlass-repo", "rates": "windlass-s3"}
built = {}


def build(root):
    """All of them at once, so that what they share is compiled once and no round waits for a compiler."""
    command = ["cargo", "bench", "--quiet", "--locked", "--no-run", "--message-format", "json"]
    for bench, package in BENCHES.items():
        command += ["-p", package, "--bench", bench]
    out = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout
    for message in map(json.loads, out.splitlines()):
        if message["reason"] == "compiler-artifact" and message["target"]["name"] in BENCHES and message["executable"]:
            built[message["target"]["name"]] = message["executable"]


def measured(root, disk):
    """Bytes a second of reading, cutting, hashing and compressing that disk; see benches/ceilings.rs."""
    out = bench(root, "ceilings", WINDLASS_BENCH_IMAGE=disk)
    return json.loads(out.strip().split("\n")[-1])


def diff(root):
    """What the diff bench prints; see backends/repo/benches/diff.rs."""
    return bench(root, "diff")


def s3_rates(root, server):
    """Bytes a second of bare PUTs and GETs by the same client; see backends/s3/benches/rates.rs."""
    settings = server.environment | {"WINDLASS_BENCH_S3": server.url(f"rates-{os.getpid()}")}
    return json.loads(bench(root, "rates", **settings).strip().split("\n")[-1])


def bench(root, name, **settings):
    """Runs one of the benches as cargo would, and gives what it printed."""
    directory = os.path.dirname(manifest(root, BENCHES[name]))
    command = [built[name], "--bench"]
    return subprocess.run(command, cwd=directory, env=os.environ | settings, check=True, stdout=subprocess.PIPE, text=True).stdout


def manifest(root, package):
    """Where the package stands: its benches run there."""
    below = "" if package == "windlass" else os.path.join("backends", package.removeprefix("windlass-"))
    return os.path.join(root, below, "Cargo.toml")
