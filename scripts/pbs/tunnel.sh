#!/usr/bin/env bash
# Usage: scripts/pbs/tunnel.sh LOGIN [JOB [DIRECTORY]]
#
# On the laptop: waits until the engines of a PBS job are there, fetches their connection file through the login node
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

newest() { qstat -u "$(id -un)" 2>/dev/null | awk '$4 == "ipengine" { id = $1 } END { sub(/[^0-9].*/, "", id); print id }'; }

state() {
    qstat -f "$1" 2>/dev/null | awk -F ' = ' '
        $1 ~ /job_state$/ { now = $2 }
        $1 ~ /comment$/ { why = ", " $2 }
        $1 ~ /estimated.start_time$/ { start = ", expected start " $2 }
        END {
            if (now == "R") print "running"
            else if (now ~ /^[QHWST]$/) print "waiting: " now why start }'
}

tunnel pbs "$@"
