"""The main job on an S3 server in the same run: ingest, full restore and restore in place on Garage, beside what the same client
reaches with bare PUTs and GETs, and a restore in place on a line of 100 MB/s beside a full restore on it."""

import json
import os
import random
import shutil
import subprocess

import ceilings
from garage import Garage
from measure import Failed, spread, warm
from tools import Windlass

LINE_BYTES_PER_S = 100_000_000
# what a restore in place undoes there: pieces of the disk overwritten, one in this many
PIECE_BYTES = 64 << 10
PIECES_ONE_IN = 100
WANTED_OF_CEILING = 0.7
WANTED_OF_FULL = 0.2
WANTED_PUT_BYTES = 16 << 20
MIB = 1 << 20


class OnS3(Windlass):
    """windlass as in the other rounds, its repository on the server."""

    name = "windlass-s3"

    def __init__(self, work, program, server):
        super().__init__(work, program)
        self.env |= server.environment
        self.server = server
        self.count = 0

    def fresh(self):
        self.count += 1
        self.env["WINDLASS_REPO"] = self.server.url(f"r{os.getpid()}-{self.count}")
        super().fresh()

    def on_a_line(self):
        """The same repository from here on, over a line of LINE_BYTES_PER_S."""
        prefix = f"r{os.getpid()}-{self.count}"
        self.env["WINDLASS_REPO"] = self.server.url(prefix, download_bytes_per_s_max=LINE_BYTES_PER_S)

    def stored_bytes(self):
        return 0

    def whole(self, snapshot, output):
        got = self.call(
            self.program, "restore", "--vm", "web1", "--to", snapshot, "--disk", "root", "--output", output, "--yes", "--json"
        )
        got["reply"] = json.loads(got["stdout"])
        return got


def same(a, b):
    return subprocess.run(["cmp", "--silent", a, b]).returncode == 0


def changed(disk, seed):
    """Overwrites one piece in PIECES_ONE_IN of those that hold data, at seeded places; returns how many bytes."""
    chosen = random.Random(seed)
    done = 0
    with open(disk, "r+b", buffering=0) as f:
        size = os.fstat(f.fileno()).st_size
        for at in range(0, size, PIECE_BYTES):
            f.seek(at)
            if any(f.read(PIECE_BYTES)) and chosen.randrange(PIECES_ONE_IN) == 0:
                f.seek(at)
                f.write(chosen.randbytes(PIECE_BYTES))
                done += PIECE_BYTES
    return done


class Rounds:
    """`with Rounds(…) as rounds:`, `rounds.one(paths)` in each round, then `rounds.lines(result)`."""

    def __init__(self, root, work, program):
        self.root, self.work, self.program = root, work, program
        self.samples, self.rates = {}, []

    def __enter__(self):
        self.server = Garage(os.path.join(self.work, "garage")).__enter__()
        self.tool = OnS3(self.work, self.program, self.server)
        return self

    def __exit__(self, *_):
        self.server.__exit__()

    def timed(self, measure, work, check):
        before = self.server.cpu_seconds()
        got = work()
        got["server_cpu_seconds"] = self.server.cpu_seconds() - before
        if not check():
            raise Failed(f"windlass on S3, {measure}: the disk differs from what was taken")
        row = {k: v for k, v in got.items() if k != "stdout"}
        self.samples.setdefault(measure, []).append(row)
        print(f"  {'s3 ' + measure:<22} windlass  {got['seconds']:8.3f} s   {got['rss_bytes'] >> 20:5d} MiB peak", flush=True)
        return got

    def one(self, paths, number):
        """One round: everything once."""
        self.rates.append(ceilings.s3_rates(self.root, self.server))
        tool, after = self.tool, paths["after"]
        tool.fresh()
        warm(after)
        first = self.timed("ingest", lambda: tool.create(after), lambda: True)["reply"]["id"]
        out = tool.path("whole.raw")
        self.timed("full restore", lambda: tool.whole(first, out), lambda: same(out, after))
        os.unlink(out)
        # the present state is stored already, so that the restore is measured and not an ingest
        disk = tool.path("disk.raw")
        subprocess.run(["cp", "--sparse=always", after, disk], check=True)
        self.changed_bytes = changed(disk, number)
        tool.create(disk)
        tool.on_a_line()
        warm(disk)
        self.timed("restore on the line", lambda: tool.restore(first, disk), lambda: same(disk, after))
        os.unlink(disk)
        self.timed("full restore on the line", lambda: tool.whole(first, out), lambda: same(out, after))
        shutil.rmtree(tool.work)

    def result(self):
        rates = {name: spread([r[name] for r in self.rates]) for name in self.rates[0]}
        return {"samples": self.samples, "rates": rates, "changed_bytes": self.changed_bytes}


def seconds(s3, measure, key="seconds"):
    return spread([row[key] for row in s3["samples"][measure]])


def ingest_line(result, s3):
    limits = {name: spread["median"] for name, spread in result["ceilings"].items()}
    what = s3["samples"]["ingest"][-1]["reply"]["disks"][0]["moved"]
    cores, put = result["machine"]["cores"], s3["rates"]["put_bytes_per_s"]["median"]
    cut = what["hashed_bytes"] * (1 / limits["fastcdc_bytes_per_s"] + 1 / limits["blake3_bytes_per_s"])
    cpu = (cut + what["new_raw_bytes"] / limits["zstd_bytes_per_s"]) / cores
    parts = {"read": what["allocated_bytes"] / limits["read_bytes_per_s"], "(CDC + hash + zstd) / cores": cpu, "stored / PUT": what["stored_bytes"] / put}
    return reached("ingest", s3, parts, cpu * cores, cores)


def restore_line(result, s3):
    limits = {name: spread["median"] for name, spread in result["ceilings"].items()}
    reply = s3["samples"]["full restore"][-1]["reply"]
    cores, get = result["machine"]["cores"], s3["rates"]["get_bytes_per_s"]["median"]
    raw = reply["written_bytes"]
    cpu = raw * (1 / limits["unzstd_bytes_per_s"] + 1 / limits["blake3_bytes_per_s"]) / cores
    parts = {"fetched / GET": reply["fetched_bytes"] / get, "(zstd + hash) / cores": cpu, "written / write and fsync": raw / limits["put_bytes_per_s"]}
    return reached("full restore", s3, parts, cpu * cores, cores)


def reached(measure, s3, parts, cpu_s, cores):
    bound = max(parts, key=parts.get)
    time, server = seconds(s3, measure)["median"], seconds(s3, measure, "server_cpu_seconds")["median"]
    own = seconds(s3, measure, "cpu_seconds")["median"]
    # the parts of T are thought of side by side, and here the server's work is done by the same cores
    shared = max(parts[bound], (cpu_s + server) / cores)
    return (
        f"{measure}: T = max({', '.join(f'{k} {v:.3f} s' for k, v in parts.items())}), bound by {bound}; took {time:.3f} s, so {parts[bound] / time:.2f} "
        f"of it is reached, wanted {WANTED_OF_CEILING}. The server shares the {cores} cores: {own:.2f} s of CPU were windlass's, {server:.2f} s its own. "
        f"With the server's work counted, T = max(T, (CDC, hash and zstd {cpu_s:.2f} s + server {server:.2f} s) / cores) = {shared:.3f} s, and {shared / time:.2f} of it is reached."
    )


def lines(result):
    """The section of the report."""
    s3 = result.get("s3")
    if not s3:
        return []
    out = ["## On S3: Garage 2.5.0 on loopback", "", "| what | median s | least to most | CPU s | server's CPU s | peak RSS MiB |", "|---|---|---|---|---|---|"]
    for measure, rows in s3["samples"].items():
        s, rss = seconds(s3, measure), max(r["rss_bytes"] for r in rows) / MIB
        cpu, server = seconds(s3, measure, "cpu_seconds")["median"], seconds(s3, measure, "server_cpu_seconds")["median"]
        out.append(f"| {measure} | {s['median']:.3f} | {s['min']:.3f} to {s['max']:.3f} | {cpu:.2f} | {server:.2f} | {rss:.0f} |")
    rates = ", ".join(f"{n.removesuffix('_bytes_per_s')} {r['median'] / 1e6:.0f} MB/s ({r['min'] / 1e6:.0f} to {r['max'] / 1e6:.0f})" for n, r in s3["rates"].items())
    line, full = seconds(s3, "restore on the line")["median"], seconds(s3, "full restore on the line")["median"]
    disk = s3["samples"]["restore on the line"][-1]["reply"]["disks"][0]
    out += [
        "",
        f"The same client's bare requests, in each round (`cargo bench -p windlass-s3`): {rates}.",
        "",
        ingest_line(result, s3),
        "",
        restore_line(result, s3),
        "",
        f"On a line of {LINE_BYTES_PER_S / 1e6:.0f} MB/s, after {s3['changed_bytes'] / MIB:.1f} MiB of the disk `after` were overwritten at random places and that state was "
        f"stored: restore in place {line:.3f} s, full restore {full:.3f} s, {line / full:.2f} of it; wanted at most {WANTED_OF_FULL}. "
        f"The restore in place fetched {disk['fetched_bytes'] / MIB:.1f} MiB in {disk['fetch_requests']} requests.",
        "",
    ]
    return out
