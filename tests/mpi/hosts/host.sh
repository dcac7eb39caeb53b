#!/usr/bin/env bash
# Usage: host.sh DIR HOST
#
# The first process of a virtual host: gives it what is its own and then lasts as long as the host does.
set -euo pipefail

# shellcheck source=tests/mpi/hosts/private.sh
source "$(dirname "${BASH_SOURCE[0]}")/private.sh"
make_private "$1" "$2"
: >"$1/run/$2.up"
# A first process has to reap what others leave: a wait does.
while :; do
    sleep 3600 &
    wait $! || true
done
