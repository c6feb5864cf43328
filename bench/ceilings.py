"""The machine's own limits, measured in the same run by the benches that stand beside the code."""

import json
import os
import subprocess


def build(root):
    """So that no round waits for a compiler."""
    for package, bench in (("windlass", "ceilings"), ("windlass-repo", "diff"), ("windlass-s3", "rates")):
        subprocess.run(["cargo", "bench", "--quiet", "--locked", "--no-run", "-p", package, "--bench", bench], cwd=root, check=True)


def measured(root, disk):
    """Bytes a second of reading, cutting, hashing and compressing that disk; see benches/ceilings.rs."""
    out = cargo_bench(root, "windlass", "ceilings", WINDLASS_BENCH_IMAGE=disk)
    return json.loads(out.strip().split("\n")[-1])


def diff(root):
    """What the diff bench prints; see backends/repo/benches/diff.rs."""
    return cargo_bench(root, "windlass-repo", "diff")


def s3_rates(root, server):
    """Bytes a second of bare PUTs and GETs by the same client; see backends/s3/benches/rates.rs."""
    settings = server.environment | {"WINDLASS_BENCH_S3": server.url(f"rates-{os.getpid()}")}
    return json.loads(cargo_bench(root, "windlass-s3", "rates", **settings).strip().split("\n")[-1])


def cargo_bench(root, package, bench, **settings):
    command = ["cargo", "bench", "--quiet", "--locked", "-p", package, "--bench", bench]
    return subprocess.run(command, cwd=root, env=os.environ | settings, check=True, stdout=subprocess.PIPE, text=True).stdout
