"""The disks that are measured: a Debian system, the same with servers installed, and one without holes.

Built once into the cache, under a name that changes with this recipe. As root it is a real system; without root, files of
this machine, which the report then says."""

import json
import os
import shutil
import subprocess
import tempfile

RECIPE = 1
SIZE_BYTES = 2 << 30
SUITE = "bookworm"
SERVERS = ["postgresql", "nginx", "redis-server"]
MKE2FS = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "bench"]
# without root: how much of which tree goes on the disk at first, and what is added later
FALLBACK_FIRST = [("/usr/bin", 90 << 20), ("/usr/lib", 150 << 20), ("/usr/share", 60 << 20)]
FALLBACK_ADDED_BYTES = 400 << 20
FILE_BYTES_MAX = 16 << 20


def run(*command, **more):
    subprocess.run(command, check=True, **more)


def prepare(cache):
    """Returns {"before", "after", "dense": paths, "what": sentences for the report}; builds what the cache lacks."""
    real = os.geteuid() == 0 and shutil.which("mmdebstrap")
    home = os.path.join(cache, f"disks-{RECIPE}-{'debian' if real else 'files'}")
    done = os.path.join(home, "what.json")
    paths = {name: os.path.join(home, f"{name}.raw") for name in ("before", "after", "dense")}
    if not os.path.exists(done):
        print(f"bench: building the disks in {home} (once)", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        os.makedirs(home)
        what = debian(home, paths) if real else files(home, paths)
        # a preallocated disk: the same bytes, every block of it allocated
        run("cp", "--sparse=never", paths["after"], paths["dense"])
        with open(done, "w") as f:
            json.dump(what, f)
    with open(done) as f:
        return paths | {"what": json.load(f)}


def debian(home, paths):
    with tempfile.TemporaryDirectory(dir=home) as work:
        root = os.path.join(work, "root")
        tar = os.path.join(work, "base.tar")
        run("mmdebstrap", "--quiet", SUITE, tar)
        os.mkdir(root)
        run("tar", "-xpf", tar, "-C", root, "--numeric-owner")
        run("truncate", "-s", str(SIZE_BYTES), paths["before"])
        run(*MKE2FS, "-d", root, paths["before"])
    run("cp", "--sparse=always", paths["before"], paths["after"])
    # mounted in a mount namespace of its own, so that nothing stays mounted whatever happens; no server is started
    script = """
        set -eu
        mount -o loop "$1" "$2"
        printf '#!/bin/sh\\nexit 101\\n' > "$2/usr/sbin/policy-rc.d" && chmod +x "$2/usr/sbin/policy-rc.d"
        [ -s "$2/etc/resolv.conf" ] || cp /etc/resolv.conf "$2/etc/resolv.conf"
        shift_to="$2"; shift 2
        chroot "$shift_to" apt-get update -q
        chroot "$shift_to" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
        rm "$shift_to/usr/sbin/policy-rc.d"
        umount "$shift_to"
    """
    with tempfile.TemporaryDirectory(dir=home) as mount:
        log = os.path.join(home, "install.log")
        with open(log, "w") as out:
            run("unshare", "-m", "sh", "-c", script, "sh", paths["after"], mount, *SERVERS, stdout=out, stderr=out)
    return {
        "before": f"ext4, Debian {SUITE} by mmdebstrap",
        "after": f"the same disk after `apt-get install {' '.join(SERVERS)}` within it (loop mount)",
        "dense": "the disk `after`, every block allocated (preallocated)",
    }


def readable(tree, budget, skip):
    """Files of a tree in the order of their names, up to `budget` bytes, after the first `skip` bytes."""
    for directory, below, names in os.walk(tree):
        below.sort()
        for name in sorted(names):
            path = os.path.join(directory, name)
            if os.path.islink(path) or not os.path.isfile(path) or not os.access(path, os.R_OK):
                continue
            size = os.path.getsize(path)
            if not 0 < size <= FILE_BYTES_MAX or any(c in path for c in ' "\\'):
                continue
            if skip > 0:
                skip -= size
                continue
            if budget <= 0:
                return
            budget -= size
            yield path


def files(home, paths):
    with tempfile.TemporaryDirectory(dir=home) as root:
        for tree, budget in FALLBACK_FIRST:
            for path in readable(tree, budget, 0):
                os.makedirs(root + os.path.dirname(path), exist_ok=True)
                shutil.copy(path, root + path)
        run("truncate", "-s", str(SIZE_BYTES), paths["before"])
        run(*MKE2FS, "-d", root, paths["before"])
    run("cp", "--sparse=always", paths["before"], paths["after"])
    with tempfile.NamedTemporaryFile("w", dir=home, suffix=".debugfs") as script:
        script.write("mkdir /added\n")
        for number, path in enumerate(readable("/usr/lib", FALLBACK_ADDED_BYTES, 150 << 20)):
            script.write(f"write {path} /added/{number}\n")
        script.flush()
        run("debugfs", "-w", "-f", script.name, paths["after"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return {
        "before": "ext4 with files of this machine (no root here, so no Debian system)",
        "after": "the same disk with more files written into it by debugfs (no root here, so no servers installed)",
        "dense": "the disk `after`, every block allocated (preallocated)",
    }
