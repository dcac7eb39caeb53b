#!/usr/bin/env bash
# Usage: scripts/slurm/tunnel.sh LOGIN [JOB [DIRECTORY]]
#
# On the laptop: waits until the engines of a Slurm job are there, fetches their connection file through the login node
# LOGIN (a name for ssh), opens a tunnel to their gateway, and prints what to paste. Ctrl-C closes the tunnel.
#   JOB        the job's id, or the cluster's name if it was given one; by default your newest job named ipengine
#   DIRECTORY  of the connection files on the cluster; by default $IPSTEER_DIR there, or ~/.ipsteer
# What ssh needs to reach LOGIN (user, port, key) belongs into ~/.ssh/config.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/../..
# shellcheck source=scripts/lib/say.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/say.sh"
# shellcheck source=scripts/lib/tunnel.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/tunnel.sh"

newest() { squeue -h -n ipengine -u "$(id -un)" -S -V -o %A | head -n 1; }

state() {
    squeue -h -j "$1" -o '%T|%r|%S' 2>/dev/null | awk -F '|' 'NR == 1 {
        if ($1 == "RUNNING") print "running"
        else if ($1 == "PENDING" || $1 == "CONFIGURING") print "waiting: " $1 ", reason " $2 ", expected start " $3 }'
}

tunnel slurm "$@"
