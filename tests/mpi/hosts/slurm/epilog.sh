#!/usr/bin/env bash
# Slurm's Epilog on each node of a job: ends every process that carries the job's id, however it has detached itself,
# as cgroups do on sites. What PBS's jobs leave in their private directory goes, too.
set -euo pipefail

# shellcheck source=tests/mpi/hosts/slurm/carriers.sh
source "$(dirname "${BASH_SOURCE[0]}")/carriers.sh"
kill_carriers job "SLURM_JOB_ID=$SLURM_JOB_ID"
kill_carriers job "PBS_JOBID=$SLURM_JOB_ID.head"
rm -rf "/var/tmp/pbs.$SLURM_JOB_ID.head"
