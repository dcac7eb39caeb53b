#!/usr/bin/env bash
# Slurm's TaskProlog, whose output edits the environment of a job: what OpenPBS sets, and nothing of Slurm.
set -euo pipefail

# node_file: a line per process, as `mpiprocs` asked for.
node_file() {
    local count times host i entry per=() node=0
    for entry in ${SLURM_TASKS_PER_NODE//,/ }; do
        count=${entry%%(*} times=1
        [[ $entry != *"(x"* ]] || times=${entry##*x} times=${times%)}
        for ((i = 0; i < times; i++)); do per+=("$count"); done
    done
    for host in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
        for ((i = 0; i < per[node]; i++)); do echo "$host"; done
        node=$((node + 1))
    done
}

id=$SLURM_JOB_ID.head
nodes=${SLURM_CONF%/*}/jobs/$id
[[ -s $nodes ]] || node_file >"$nodes"
[[ -d /var/tmp/pbs.$id ]] || mkdir -m 700 "/var/tmp/pbs.$id"
cat <<END
export PBS_NODEFILE=$nodes
export PBS_JOBID=$id
export PBS_ENVIRONMENT=PBS_BATCH
export PBS_O_QUEUE=$SLURM_JOB_PARTITION
export PBS_QUEUE=$SLURM_JOB_PARTITION
export NCPUS=$SLURM_CPUS_ON_NODE
export OMP_NUM_THREADS=$SLURM_CPUS_ON_NODE
export TMPDIR=/var/tmp/pbs.$id
END
compgen -e | grep -E '^(SLURM|SLURMD|SBATCH)_?' | sed 's/^/unset /'
