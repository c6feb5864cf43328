#!/usr/bin/env python3
"""windlass beside restic, borg and casync in one run: alternated rounds, medians and spread, everything that was not equal.

Timings never fail this; a wrong result does (a disk that didn't come back, a re-scan that wrote a data object)."""

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, HERE)

import ceilings  # noqa: E402
import disks  # noqa: E402
import report  # noqa: E402
import s3  # noqa: E402
from measure import Failed, put_bytes_per_s, spread, warm  # noqa: E402
from tools import Borg, Casync, Restic, Windlass  # noqa: E402


def arguments():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="alternated rounds (default 5)")
    parser.add_argument("--only", help="tools, by comma: windlass,restic,borg,casync")
    parser.add_argument("--windlass", default=os.path.join(ROOT, "target/release/windlass"), help="the program to measure")
    parser.add_argument("--cache", default=os.path.join(cache, "windlass/bench"), help="where disks and work are kept")
    parser.add_argument("--report", default=os.path.join(HERE, "report"), help="where the report goes")
    parser.add_argument("--no-cargo", action="store_true", help="without the benches that cargo builds (ceilings, diff)")
    parser.add_argument("--no-s3", action="store_true", help="without the rounds on an S3 server")
    parser.add_argument("--no-dense", action="store_true", help="without the disk that has no holes")
    return parser.parse_args()


def same(a, b):
    return subprocess.run(["cmp", "--silent", a, b]).returncode == 0


def note(samples, tool, measure, got):
    row = {k: v for k, v in got.items() if k != "stdout"}
    samples.setdefault(measure, {}).setdefault(tool, []).append(row)
    print(f"  {measure:<22} {tool:<9} {got['seconds']:8.3f} s   {got['rss_bytes'] >> 20:5d} MiB peak", flush=True)


def round_of(tool, paths, args, samples):
    """One tool, once through everything."""
    tool.fresh()
    for measure, disk in (("first", "before"), ("again", "before"), ("second", "after")):
        warm(paths[disk])
        ours = measure == "again" and tool.name == "windlass"
        got = unchanged(tool, paths[disk]) if ours else getattr(tool, measure)(paths[disk])
        got["stored_bytes"] = tool.stored_bytes()
        if measure == "first" and tool.name == "windlass":
            first_id = got["reply"]["id"]
        note(samples, tool.name, measure, got)
    if tool.name == "casync":
        restore_casync(tool, paths, samples)
    if tool.name == "windlass":
        # here the repository knows the present state already: the common snapshot costs a re-scan
        restore_windlass(tool, first_id, paths, samples, "restore, state known")
        tool.fresh()
        first_id = tool.first(paths["before"])["reply"]["id"]
        restore_windlass(tool, first_id, paths, samples, "restore")
    if not args.no_dense:
        tool.fresh()
        warm(paths["dense"])
        got = tool.dense(paths["dense"])
        got["stored_bytes"] = tool.stored_bytes()
        note(samples, tool.name, "dense", got)
        if tool.name == "windlass":
            warm(paths["dense"])
            note(samples, tool.name, "dense again", unchanged(tool, paths["dense"]))
    shutil.rmtree(tool.work)


def unchanged(tool, disk):
    """A re-scan, which must store nothing."""
    packs = tool.packs()
    got = tool.again(disk)
    got["new_packs"] = len(set(tool.packs()) - set(packs))
    if got["reply"]["disks"][0]["moved"]["new_chunks"] or got["new_packs"]:
        raise Failed(f"the re-scan of an unchanged disk wrote: {got['new_packs']} packs, {got['reply']}")
    return got


def restore_windlass(tool, to, paths, samples, measure):
    disk = tool.path("disk.raw")
    subprocess.run(["cp", "--sparse=always", paths["after"], disk], check=True)
    warm(disk)
    got = tool.restore(to, disk)
    if not same(disk, paths["before"]):
        raise Failed("windlass restore: the disk differs from what was taken")
    note(samples, tool.name, measure, got)


def restore_casync(tool, paths, samples):
    output = tool.path("extracted.raw")
    warm(paths["after"])
    got = tool.extract(paths["after"], output)
    if not same(output, paths["before"]):
        raise Failed("casync extract: the file differs from what was taken")
    note(samples, tool.name, "restore", got)


def needed(tool, paths, samples):
    """What a restore of `before` over `after` can't find on the disk, counted by another way than the restore's own: a fresh
    repository gets `after`, then `before`; what the second stores are exactly the chunks that `after` has nowhere."""
    tool.fresh()
    tool.create(paths["after"])
    moved = tool.create(paths["before"])["reply"]["disks"][0]["moved"]
    shutil.rmtree(tool.work)
    return {
        "chunks": moved["new_chunks"],
        "stored_bytes": moved["stored_bytes"],
        "fetched_bytes": samples["restore"]["windlass"][-1]["reply"]["disks"][0]["fetched_bytes"],
    }


def machine():
    with open("/proc/cpuinfo") as f:
        cpu = re.search(r"model name\s*: (.*)", f.read())
    with open("/proc/meminfo") as f:
        memory = int(re.search(r"MemTotal:\s*(\d+)", f.read()).group(1)) * 1024
    return {
        "cpu": cpu.group(1) if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": memory,
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
    }


def main():
    args = arguments()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    work = os.path.join(args.cache, "work")
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    tools = [Windlass(work, args.windlass), Restic(work), Borg(work), Casync(work)]
    if args.only:
        wanted = args.only.split(",")
        tools = [t for t in tools if t.name in wanted]
    result = {"at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "machine": machine()}
    paths = disks.prepare(args.cache)
    result["disks"] = {
        name: {
            "what": paths["what"][name],
            "size_bytes": os.path.getsize(paths[name]),
            "allocated_bytes": os.stat(paths[name]).st_blocks * 512,
        }
        for name in ("before", "after", "dense")
    }
    result["tools"] = {t.name: {"version": t.version()} | t.settings for t in tools}
    samples = {}
    limits = []
    if not args.no_cargo:
        ceilings.build(ROOT)
        result["diff"] = ceilings.diff(ROOT)
    on_s3 = contextlib.nullcontext() if args.no_s3 or args.no_cargo else s3.Rounds(ROOT, work, args.windlass)
    with on_s3 as rounds:
        for number in range(args.runs):
            print(f"round {number + 1} of {args.runs}", flush=True)
            limits.append({"put_bytes_per_s": put_bytes_per_s(work)})
            if not args.no_cargo:
                limits[-1] |= ceilings.measured(ROOT, paths["before"])
            turn = number % len(tools)
            for tool in tools[turn:] + tools[:turn]:
                round_of(tool, paths, args, samples)
            if rounds:
                rounds.one(paths, number)
    if rounds:
        result["s3"] = rounds.result()
    result["samples"] = samples
    result["ceilings"] = {name: spread([limit[name] for limit in limits]) for name in limits[0]}
    if tools[0].name == "windlass":
        result["needed"] = needed(tools[0], paths, samples)
    result["machine"]["load_after"] = os.getloadavg()[0]
    shutil.rmtree(work, ignore_errors=True)
    text = report.write(result, args.report)
    print(f"\n{text}\nreport: {args.report}/report.md and report.json")


if __name__ == "__main__":
    try:
        main()
    except (Failed, subprocess.CalledProcessError) as error:
        sys.exit(f"bench: {error}")
