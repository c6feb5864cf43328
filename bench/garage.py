"""A Garage of one node on loopback, for the rounds on S3: started with a directory and ports of its own, killed by its own id."""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request

from measure import Failed

VERSION = "2.5.0"  # as scripts/deps.sh pins it
BUCKET = "windlass-bench"
KEY_ID = "GK000000000000000000000001"
SECRET = "0" * 63 + "1"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Garage:
    """`with Garage(directory) as server:`; `server.url(prefix)` and `server.environment` are what a client needs."""

    def __init__(self, directory):
        self.directory = directory
        self.child = None

    def __enter__(self):
        program = os.path.join(os.path.expanduser("~/.cache/windlass"), f"garage-{VERSION}/bin/garage")
        if not os.path.exists(program):
            raise Failed(f"no {program}: run `make deps`, which installs it")
        os.makedirs(self.directory)
        rpc, self.port = free_port(), free_port()
        config = os.path.join(self.directory, "garage.toml")
        with open(config, "w") as f:
            f.write(
                f'metadata_dir = "{self.directory}/meta"\ndata_dir = "{self.directory}/data"\ndb_engine = "sqlite"\n'
                f'replication_factor = 1\nrpc_bind_addr = "127.0.0.1:{rpc}"\nrpc_public_addr = "127.0.0.1:{rpc}"\n'
                f'rpc_secret = "{SECRET}"\n[s3_api]\ns3_region = "garage"\n'
                f'api_bind_addr = "127.0.0.1:{self.port}"\nroot_domain = ".localhost"\n'
            )
        os.chmod(config, 0o600)
        keys = {"GARAGE_DEFAULT_ACCESS_KEY": KEY_ID, "GARAGE_DEFAULT_SECRET_KEY": SECRET, "GARAGE_DEFAULT_BUCKET": BUCKET}
        log = open(os.path.join(self.directory, "log"), "w")
        self.child = subprocess.Popen(
            [program, "-c", config, "server", "--single-node", "--default-bucket"],
            env=os.environ | keys | {"RUST_LOG": "garage=warn"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        until = time.monotonic() + 60
        while not self.ready():
            if self.child.poll() is not None or time.monotonic() > until:
                self.__exit__()
                with open(log.name) as f:
                    raise Failed(f"Garage isn't ready:\n{f.read()[-2000:]}")
            time.sleep(0.05)
        return self

    def ready(self):
        """Its door opens after the bucket was made; without a key it answers 403."""
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{BUCKET}", timeout=2)
        except urllib.error.HTTPError as error:
            return error.code == 403
        except OSError:
            return False
        return False

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()

    def url(self, prefix, **more):
        keys = "".join(f"&{key}={value}" for key, value in more.items())
        return f"s3://{BUCKET}/{prefix}?endpoint=http://127.0.0.1:{self.port}&region=garage{keys}"

    environment = {
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "NO_PROXY": "127.0.0.1",
    }

    def cpu_seconds(self):
        """What the server has used so far: it shares the cores with its client here."""
        with open(f"/proc/{self.child.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
