#!/usr/bin/env python3
"""How fast a daemon gives a disk's bytes on its Unix socket, beside a plain file that is sent on one: the same client (curl, to
/dev/null), alternated rounds, the medians and their spread. `python3 bench/blob.py [DISK]`; without a disk 512 MiB are made, half
of which compress."""

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time

from measure import spread, warm

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WINDLASS = os.path.join(ROOT, "target/release/windlass")
ROUNDS = 5


def made(path):
    words = [random.randbytes(7) for _ in range(500)]
    with open(path, "wb") as f:
        for _ in range(256):
            f.write(random.randbytes(1 << 20))
            f.write(b"".join(random.choices(words, k=(1 << 20) // 7 + 1))[: 1 << 20])
    return path


def serve_file(path, at):
    """Answers every request on the socket `at` with the file, by sendfile."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(at)
    listener.listen()

    def loop():
        while True:
            client, _ = listener.accept()
            with client, open(path, "rb") as f:
                client.recv(65536)
                head = f"HTTP/1.1 200 OK\r\ncontent-length: {os.path.getsize(path)}\r\nconnection: close\r\n\r\n"
                client.sendall(head.encode())
                client.sendfile(f)

    threading.Thread(target=loop, daemon=True).start()


def fetch(at, path, size):
    began = time.monotonic()
    done = subprocess.run(
        ["curl", "-sSf", "--unix-socket", at, "-o", "/dev/null", "-w", "%{size_download}", "http://x" + path],
        check=True, capture_output=True, text=True,
    )
    took = time.monotonic() - began
    if int(done.stdout) != size:
        sys.exit(f"blob: {done.stdout} of {size} bytes came")
    return size / took / 1e6


def main():
    with tempfile.TemporaryDirectory(prefix="windlass-blob-") as work:
        disk = sys.argv[1] if len(sys.argv) > 1 else made(os.path.join(work, "disk.raw"))
        size = os.path.getsize(disk)
        state, plain = os.path.join(work, "state"), os.path.join(work, "plain.sock")
        environment = dict(os.environ, WINDLASS_STATE_DIR=state, WINDLASS_REPO=f"file://{work}/repo", HOME=work)
        create = [WINDLASS, "snapshot", "create", "--vm", "v", "--disk", f"d={disk}", "--json"]
        out = subprocess.run(create, env=environment, check=True, capture_output=True, text=True).stdout
        snapshot = json.loads(out)["id"]
        serve_file(disk, plain)
        daemon = subprocess.Popen([WINDLASS, "serve"], env=environment, stderr=subprocess.DEVNULL)
        try:
            own = os.path.join(state, "windlass.sock")
            while not os.path.exists(own):
                time.sleep(0.05)
            blob = f"/v1/blob/{snapshot}.disk.d"
            warm(disk)
            fetch(own, blob, size)
            rates = {"blob": [], "file": []}
            for _ in range(ROUNDS):
                rates["blob"].append(fetch(own, blob, size))
                rates["file"].append(fetch(plain, "/", size))
        finally:
            daemon.terminate()
            daemon.wait()
        for name, all_of_it in rates.items():
            of = spread(all_of_it)
            print(f"{name}: {of['median']:.0f} MB/s ({of['min']:.0f} to {of['max']:.0f})")


if __name__ == "__main__":
    main()
