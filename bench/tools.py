"""windlass and its peers: how each is called, and what must be said of it beside a figure.

Every tool has the same verbs: `first`, `again`, `second`, `dense` return what `measure.timed` returns."""

import glob
import json
import os
import shutil
import subprocess

from measure import timed, tree_bytes


class Tool:
    name = ""
    # what is not equal, printed beside every figure
    settings = {}

    def __init__(self, work):
        self.work = os.path.join(work, self.name)
        self.env = dict(os.environ)

    def fresh(self):
        """An empty repository; not part of any time."""
        shutil.rmtree(self.work, ignore_errors=True)
        os.makedirs(self.work)

    def path(self, name):
        return os.path.join(self.work, name)

    def call(self, *argv):
        return timed(list(argv), env=self.env, cwd=self.work)

    def version(self):
        out = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True).stdout
        return out.split("\n")[0].strip()

    def stored_bytes(self):
        return tree_bytes(self.path("repo"))


class Windlass(Tool):
    name = "windlass"
    settings = {
        "compression": "zstd 1",
        "encryption": "none (ids are keyed BLAKE3)",
        "threads": "all cores",
        "chunks": "FastCDC 16/64/256 KiB",
        "durability": "fsync of every object; restore: fsync, read back past the cache",
        "flags": "defaults",
    }

    def __init__(self, work, program):
        super().__init__(work)
        self.program = os.path.abspath(program)
        for name in [n for n in self.env if n.startswith("WINDLASS_")]:
            del self.env[name]
        self.env |= {
            "WINDLASS_STATE_DIR": self.path("state"),
            "WINDLASS_REPO": f"file://{self.path('repo')}",
            "WINDLASS_CONFIG": self.path("windlass.toml"),
        }

    def fresh(self):
        super().fresh()
        with open(self.path("windlass.toml"), "w") as f:
            f.write("# all defaults\n")
        self.call(self.program, "repo", "init")

    def create(self, disk):
        got = self.call(self.program, "snapshot", "create", "--vm", "web1", "--disk", f"root={disk}", "--json")
        got["reply"] = json.loads(got["stdout"])
        return got

    first = again = second = dense = create

    def packs(self):
        return {p: os.path.getsize(p) for p in glob.glob(self.path("repo/packs/**/*"), recursive=True) if os.path.isfile(p)}

    def restore(self, to, disk):
        got = self.call(
            self.program, "restore", "--vm", "web1", "--to", to, "--disk", f"root={disk}", "--yes", "--json"
        )
        got["reply"] = json.loads(got["stdout"])
        return got


class Restic(Tool):
    name = program = "restic"
    settings = {
        "compression": "auto (zstd)",
        "encryption": "always (AES-256-CTR, Poly1305)",
        "threads": "all cores (GOMAXPROCS)",
        "chunks": "Rabin 512 KiB/1/8 MiB",
        "durability": "fsync of packs",
        "flags": "again: --force",
    }

    def version(self):
        return subprocess.run(["restic", "version"], capture_output=True, text=True, check=True).stdout.strip()

    def fresh(self):
        super().fresh()
        with open(self.path("password"), "w") as f:
            f.write("bench")
        self.env |= {"RESTIC_CACHE_DIR": self.path("cache"), "RESTIC_PASSWORD_FILE": self.path("password")}
        self.call("restic", "-q", "-r", self.path("repo"), "init", "--repository-version", "2")

    def backup(self, disk, *flags):
        return self.call("restic", "-q", "-r", self.path("repo"), "backup", *flags, disk)

    def first(self, disk):
        return self.backup(disk)

    dense = second = first

    def again(self, disk):
        return self.backup(disk, "--force")


class Borg(Tool):
    name = program = "borg"
    settings = {
        "compression": "zstd 1",
        "encryption": "none",
        "threads": "one",
        "chunks": "buzhash 512 KiB/2/8 MiB",
        "durability": "fsync of segments",
        "flags": "--files-cache disabled",
    }

    def fresh(self):
        super().fresh()
        self.env |= {
            "BORG_BASE_DIR": self.path("base"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }
        self.call("borg", "init", "--encryption", "none", self.path("repo"))

    def archive(self, name, disk):
        return self.call(
            "borg", "create", "--compression", "zstd,1", "--files-cache", "disabled", f"{self.path('repo')}::{name}", disk
        )

    def first(self, disk):
        return self.archive("first", disk)

    def again(self, disk):
        return self.archive("again", disk)

    def second(self, disk):
        return self.archive("second", disk)

    dense = first


class Casync(Tool):
    name = program = "casync"
    settings = {
        "compression": "zstd (its default level)",
        "encryption": "none",
        "threads": "one",
        "chunks": "buzhash 16/64/256 KiB",
        "durability": "none asked for",
        "flags": "--compression=zstd",
    }

    def fresh(self):
        super().fresh()
        os.mkdir(self.path("repo"))

    def make(self, name, disk):
        return self.call("casync", "make", "--compression=zstd", f"--store={self.path('repo')}", self.path(f"{name}.caibx"), disk)

    def first(self, disk):
        return self.make("first", disk)

    def again(self, disk):
        return self.make("again", disk)

    def second(self, disk):
        return self.make("second", disk)

    dense = first

    def extract(self, seed, output):
        """The whole of `first` into a new file, with what the seed holds taken from there."""
        return self.call("casync", "extract", f"--store={self.path('repo')}", f"--seed={seed}", self.path("first.caibx"), output)
