#!/bin/sh
# A Garage of one's own, to play with: `eval "$(sh scripts/garage.sh start)"` starts one on loopback and puts its keys and a
# repository in its bucket into the environment; `sh scripts/garage.sh stop` ends it and removes what it held. `make deps`
# installs it. WINDLASS_GARAGE_DIR says where it lives.
set -eu

DIR=${WINDLASS_GARAGE_DIR:-$HOME/.cache/windlass/playground}
GARAGE=$HOME/.cache/windlass/garage-2.5.0/bin/garage # as scripts/deps.sh pins it
KEY=GK000000000000000000000002
SECRET=0000000000000000000000000000000000000000000000000000000000000002

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

runs() {
    [ -f "$DIR/pid" ] && kill -0 "$(cat "$DIR/pid")" 2>/dev/null
}

start() {
    [ -x "$GARAGE" ] || { echo "garage.sh: no $GARAGE; run: make deps" >&2; exit 1; }
    if ! runs; then
        mkdir -p "$DIR"
        chmod 700 "$DIR"
        port=$(free_port)
        rpc=$(free_port)
        cat >"$DIR/garage.toml" <<EOF
metadata_dir = "$DIR/meta"
data_dir = "$DIR/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:$rpc"
rpc_public_addr = "127.0.0.1:$rpc"
rpc_secret = "$SECRET"
[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:$port"
EOF
        chmod 600 "$DIR/garage.toml"
        echo "$port" >"$DIR/port"
        GARAGE_DEFAULT_ACCESS_KEY=$KEY GARAGE_DEFAULT_SECRET_KEY=$SECRET GARAGE_DEFAULT_BUCKET=windlass \
            "$GARAGE" -c "$DIR/garage.toml" server --single-node --default-bucket >"$DIR/log" 2>&1 </dev/null &
        echo $! >"$DIR/pid"
        tries=0
        until python3 -c "import socket; socket.create_connection(('127.0.0.1', $port), 1)" 2>/dev/null; do
            tries=$((tries + 1))
            if ! runs || [ $tries -gt 100 ]; then
                cat "$DIR/log" >&2
                exit 1
            fi
            sleep 0.2
        done
    fi
    echo "export AWS_ACCESS_KEY_ID=$KEY AWS_SECRET_ACCESS_KEY=$SECRET"
    echo "export WINDLASS_REPO='s3://windlass/vms?endpoint=http://127.0.0.1:$(cat "$DIR/port")&region=garage'"
}

stop() {
    if runs; then
        pid=$(cat "$DIR/pid")
        kill "$pid"
        while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    fi
    rm -rf "$DIR/meta" "$DIR/data" "$DIR/garage.toml" "$DIR/log" "$DIR/pid" "$DIR/port"
}

case "${1:-}" in
start | stop) "$1" ;;
*)
    echo "usage: scripts/garage.sh start|stop" >&2
    exit 2
    ;;
esac
