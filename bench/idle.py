"""What an idle host costs: CPU and memory of `windlass serve`, embedded and in a fleet of three on one machine, after it has settled.

    python3 bench/idle.py [--binary target/release/windlass] [--settle 15] [--seconds 60]

Wanted: under 1 % of one core, under 60 MiB. Heartbeats, watches, pulls of both job queues and the servers' pings are all under way;
nobody asks for anything."""

import argparse
import os
import shutil
import socket
import subprocess
import tempfile
import time

NATS_SERVER = os.environ.get("WINDLASS_NATS_SERVER", os.path.expanduser("~/.cache/windlass/nats/bin/nats-server"))
TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mib(pid):
    with open(f"/proc/{pid}/status") as f:
        sizes = {line.split(":")[0]: line.split()[1] for line in f if line.startswith("Vm")}
    return int(sizes["VmRSS"]) / 1024, int(sizes["VmHWM"]) / 1024


class Host:
    def __init__(self, binary, work, name, nats, member=None):
        env = {key: value for key, value in os.environ.items() if not key.startswith("WINDLASS_")}
        env |= {
            "WINDLASS_STATE_DIR": os.path.join(work, name),
            "WINDLASS_REPO__CACHE_DIR": os.path.join(work, name + "-cache"),
            "WINDLASS_HOST_ID": name,
        }
        if nats:
            env["WINDLASS_NATS"] = nats
        if member:
            token = subprocess.run([binary, "hosts", "token", name], env=member.env, check=True, capture_output=True, text=True)
            subprocess.run([binary, "hosts", "join", token.stdout.strip()], env=env, check=True, capture_output=True)
        self.env = env
        self.name = name
        log = open(os.path.join(work, name + ".log"), "wb")
        self.log = log.name
        self.child = subprocess.Popen([binary, "serve"], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_serving(self):
        for _ in range(600):
            if b"serving" in open(self.log, "rb").read():
                return
            if self.child.poll() is not None:
                break
            time.sleep(0.1)
        raise SystemExit(f"{self.name} does not serve:\n{open(self.log).read()}")


def measure(hosts, settle_s, seconds):
    for host in hosts:
        host.wait_serving()
    time.sleep(settle_s)
    before = [cpu_seconds(host.child.pid) for host in hosts]
    began = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    for host, used in zip(hosts, before):
        percent = (cpu_seconds(host.child.pid) - used) / took * 100
        now, most = memory_mib(host.child.pid)
        print(f"idle host {host.name}: {percent:.2f} % of a core over {took:.0f} s, {now:.1f} MiB resident ({most:.1f} at most)")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default="target/release/windlass")
    parser.add_argument("--settle", type=float, default=15)
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    binary = os.path.abspath(args.binary)
    work = tempfile.mkdtemp(prefix="windlass-idle-")
    children = []
    try:
        port = free_port()
        conf = os.path.join(work, "nats.conf")
        with open(conf, "w") as f:
            f.write(f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{work}/nats", sync_interval: always }}\n')
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        children.append(subprocess.Popen([NATS_SERVER, "-c", conf], **quiet))
        alone = [Host(binary, work, "embedded", None)]
        nats = f"nats://127.0.0.1:{port}"
        first = Host(binary, work, "fleet-1", nats)
        children.append(first.child)
        first.wait_serving()
        others = [Host(binary, work, f"fleet-{n}", nats, member=first) for n in (2, 3)]
        fleet = [first, *others]
        children += [host.child for host in alone + others]
        measure(alone + fleet, args.settle, args.seconds)
    finally:
        for child in reversed(children):
            child.terminate()
        for child in children:
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
