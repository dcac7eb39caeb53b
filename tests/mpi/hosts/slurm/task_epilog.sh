#!/usr/bin/env bash
# Slurm's TaskEpilog: the last task of a step on a node ends every process that carries the step's id there, as cgroups
# do on sites.
set -euo pipefail
shopt -s extglob

# shellcheck source=tests/mpi/hosts/slurm/carriers.sh
source "$(dirname "${BASH_SOURCE[0]}")/carriers.sh"

# The batch script is no step of several tasks; the Epilog follows it.
[[ ${SLURM_STEP_ID:-batch} =~ ^[0-9]+$ ]] && ((SLURM_STEP_ID < 4294967280)) || exit 0

# tasks_here: of "2(x3),1", the entry of this node.
tasks_here() {
    local node=0 entry count times
    for entry in ${SLURM_STEP_TASKS_PER_NODE//,/ }; do
        count=${entry%%(*} times=1
        [[ $entry != *"(x"* ]] || times=${entry##*x} times=${times%)}
        ((node += times))
        ((SLURM_NODEID >= node)) || break
    done
    echo "$count"
}

ended=${SLURM_CONF%/*}/jobs/$SLURM_JOB_ID.$SLURM_STEP_ID.$SLURM_NODEID
# A line per task that has ended; a short append is never torn.
echo "$SLURM_PROCID" >>"$ended"
(($(wc -l <"$ended") >= $(tasks_here))) || exit 0
kill_carriers step "SLURM_JOB_ID=$SLURM_JOB_ID" "SLURM_STEP_ID=$SLURM_STEP_ID"
