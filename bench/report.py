"""The report: JSON for machines, Markdown for people."""

import json
import os

import s3
from measure import spread

MEASURES = [
    ("first", "First ingest, disk with holes (`before`)"),
    ("dense", "First ingest, every block allocated (`dense`)"),
    ("again", "Re-scan of the unchanged disk (`before`)"),
    ("dense again", "Re-scan of the unchanged disk without holes (`dense`)"),
    ("second", "Next state (`after`) into the same repository"),
    ("restore", "Restore of `before` over `after`"),
    ("restore, state known", "The same, `after` being in the repository already"),
]
# what the project wants to be, as times of a peer's median
WANTED = {("first", "restic"): 5, ("first", "borg"): 3, ("first", "casync"): 10, ("restore", "casync"): 2}
WANTED_OF_CEILING = {"first": 0.7, "dense": 0.7, "again": 0.8, "dense again": 0.8}
MIB = 1 << 20


def median(samples, measure, tool, key="seconds"):
    rows = samples.get(measure, {}).get(tool)
    return spread([row[key] for row in rows])["median"] if rows and key in rows[0] else None


def moved(samples, measure):
    rows = samples.get(measure, {}).get("windlass")
    return rows[-1]["reply"]["disks"][0]["moved"] if rows else None


def ceiling_s(result, measure):
    """Seconds that the machine's own limits allow, and how they were computed; None without the measured limits."""
    limits = {name: spread["median"] for name, spread in result["ceilings"].items()}
    cores, what = result["machine"]["cores"], moved(result["samples"], measure)
    if what is None or "read_bytes_per_s" not in limits:
        return None
    if measure.endswith("again"):
        seconds = what["allocated_bytes"] / limits["read_hash_all_bytes_per_s"]
        return seconds, "allocated bytes / read and hash by the same I/O path on all cores"
    read = what["allocated_bytes"] / limits["read_bytes_per_s"]
    cut = what["hashed_bytes"] * (1 / limits["fastcdc_bytes_per_s"] + 1 / limits["blake3_bytes_per_s"])
    squeeze = what["new_raw_bytes"] / limits["zstd_bytes_per_s"]
    put = what["stored_bytes"] / limits["put_bytes_per_s"]
    parts = {"read": read, "(CDC + hash + zstd) / cores": (cut + squeeze) / cores, "stored / PUT": put}
    bound = max(parts, key=parts.get)
    return parts[bound], f"T = max({', '.join(f'{k} {v:.3f} s' for k, v in parts.items())}); bound by {bound}"


def measure_lines(result, measure, title):
    samples = result["samples"]
    tools = samples.get(measure)
    if not tools:
        return []
    ours = median(samples, measure, "windlass")
    lines = [f"### {title}", "", "| tool | median s | least to most | CPU s | peak RSS MiB | stored MiB | times windlass |", "|---|---|---|---|---|---|---|"]
    for tool, rows in tools.items():
        s = spread([r["seconds"] for r in rows])
        stored = f"{rows[-1]['stored_bytes'] / MIB:.0f}" if "stored_bytes" in rows[-1] else "-"
        times = "-"
        if tool != "windlass" and ours:
            quotient = s["median"] / ours
            times = f"({quotient:.1f}) no ratio: encryption unequal" if tool == "restic" else f"{quotient:.1f}"
            if (measure, tool) in WANTED:
                times += f", wanted {WANTED[measure, tool]}"
        cpu = spread([r["cpu_seconds"] for r in rows])["median"]
        rss = max(r["rss_bytes"] for r in rows) / MIB
        lines.append(f"| {tool} | {s['median']:.3f} | {s['min']:.3f} to {s['max']:.3f} | {cpu:.2f} | {rss:.0f} | {stored} | {times} |")
    lines.append("")
    limit = ceiling_s(result, measure) if measure in WANTED_OF_CEILING else None
    if limit and ours:
        inner = spread([r["reply"]["took_s"] for r in tools["windlass"]])["median"]
        lines += [
            f"Ceiling {limit[0]:.3f} s: {limit[1]}. Reached: {limit[0] / ours:.2f} of it by the whole command, "
            f"{limit[0] / inner:.2f} by the work that it reports ({inner:.3f} s); wanted {WANTED_OF_CEILING[measure]}.",
            "",
        ]
    if measure.endswith("again") and "windlass" in tools:
        lines += [f"New packs written by the re-scans: {sum(r['new_packs'] for r in tools['windlass'])}.", ""]
    if measure.startswith("restore") and "windlass" in tools:
        lines += restore_lines(tools["windlass"][-1]["reply"])
    return lines


def restore_lines(reply):
    disk = reply["disks"][0]
    keys = ["differing_bytes", "copied_bytes", "fetched_raw_bytes", "fetched_bytes", "hole_bytes", "written_bytes", "verified_bytes"]
    figures = ", ".join(f"{k[:-6].replace('_', ' ')} {disk[k] / MIB:.1f}" for k in keys)
    phases = ", ".join(f"{k} {v:.3f}" for k, v in disk["phases_s"].items())
    return [f"windlass, last run, MiB: {figures}; {disk['fetch_requests']} requests. Phases, s: {phases}.", ""]


def fetched_lines(result):
    need = result.get("needed")
    if not need:
        return []
    ratio = need["fetched_bytes"] / need["stored_bytes"] if need["stored_bytes"] else 0
    return [
        f"Bytes fetched by the restore: {need['fetched_bytes']}; compressed size of the {need['chunks']} chunks that are nowhere on "
        f"the disk: {need['stored_bytes']} (counted as what a fresh repository stores of `before` once it has `after`). {ratio:.3f} times; wanted at most 1.05.",
        "",
    ]


def markdown(result):
    machine = result["machine"]
    lines = [
        "# windlass beside its peers",
        "",
        f"{result['at']}; {machine['cores']} cores ({machine['cpu']}), {machine['memory_bytes'] >> 30} GiB, Linux {machine['kernel']}; "
        f"load {machine['load_before']:.1f} before, {machine['load_after']:.1f} after. Alternated rounds; inputs in the page cache; dirty pages "
        "flushed before each time is taken. Times on shared machines drift: compare within one report only.",
        "",
    ]
    lines += ["| disk | what | size GiB | allocated MiB |", "|---|---|---|---|"]
    lines += [f"| `{n}` | {d['what']} | {d['size_bytes'] / (1 << 30):.1f} | {d['allocated_bytes'] / MIB:.0f} |" for n, d in result["disks"].items()]
    lines += ["", "## Figures", ""]
    for measure, title in MEASURES:
        lines += measure_lines(result, measure, title)
        if measure == "restore":
            lines += fetched_lines(result)
    lines += s3.lines(result)
    lines += ["## What was not equal", "", "| tool | version | compression | encryption | threads | chunks | durability | flags |", "|---|---|---|---|---|---|---|---|"]
    keys = ["version", "compression", "encryption", "threads", "chunks", "durability", "flags"]
    lines += [f"| {name} | {' | '.join(t[k] for k in keys)} |" for name, t in result["tools"].items()]
    lines += [
        "",
        "restic can't be told not to encrypt, so its quotient stands in brackets and is no ratio. casync's extract writes a whole new file "
        "without fsync; windlass writes into the disk, keeps the state that it replaces, and reads back what it wrote.",
        "",
        "## Ceilings of this run",
        "",
        "Measured in each round by the crates themselves, without windlass (`benches/ceilings.rs`); put: 16 MiB objects, written and "
        "fsynced, four at once. One thread each but for put and `read hash all`.",
        "",
        "| work | median GB/s | least to most |",
        "|---|---|---|",
    ]
    for name, rate in result["ceilings"].items():
        shown = name.removesuffix("_bytes_per_s").replace("_", " ")
        lines.append(f"| {shown} | {rate['median'] / 1e9:.2f} | {rate['min'] / 1e9:.2f} to {rate['max'] / 1e9:.2f} |")
    if result.get("diff"):
        lines += ["", "## Diff of two 1 TiB manifests", "", "```text", result["diff"].strip(), "```"]
    return "\n".join(lines) + "\n"


def write(result, directory):
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "report.json"), "w") as f:
        json.dump(result, f, indent=1)
    text = markdown(result)
    with open(os.path.join(directory, "report.md"), "w") as f:
        f.write(text)
    return text
