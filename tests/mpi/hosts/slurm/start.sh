# shellcheck shell=bash
# Slurm on the hosts of cluster.sh, which sources this. No munge, no cgroups, no systemd, no database.

write_slurm_conf() {
    local here me
    # Set by cluster.sh.
    # shellcheck disable=SC2153
    here=$HERE/slurm
    me=$(id -un)
    mkdir -p "$W"/slurm/{state,spool,jobs}
    cat >"$W/slurm/slurm.conf" <<END
ClusterName=virtual
SlurmctldHost=head($(address head))
SlurmUser=$me
SlurmdUser=$me
AuthType=auth/none
CredType=cred/none
StateSaveLocation=$W/slurm/state
SlurmdSpoolDir=$W/slurm/spool/%n
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=$W/log/slurmctld.log
SlurmdLogFile=$W/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$W/log/jobcomp.txt
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1
SlurmdParameters=config_overrides
SlurmdTimeout=10
ReturnToService=2
KillWait=30
TaskEpilog=$here/task_epilog.sh
Epilog=$here/epilog.sh
NodeName=h[1-$N] NodeAddr=10.77.0.[1-$N] CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=debug Nodes=h[1-$N] Default=YES MaxTime=INFINITE State=UP
END
    if wants pbs; then
        printf '%s\n' "TaskProlog=$HERE/pbs/task_prolog.sh" JobSubmitPlugins=pbs >>"$W/slurm/slurm.conf"
        echo "required $(echo /usr/lib/*/slurm-wlm/spank_pbs.so)" >"$W/slurm/plugstack.conf"
    fi
}

start_slurm() {
    local tries=0 i
    export SLURM_CONF=$W/slurm/slurm.conf
    write_slurm_conf
    # Whoever logs in finds the commands of the batch system, and they find their configuration.
    {
        echo "export SLURM_CONF=$SLURM_CONF"
        ! wants pbs || echo "PATH=$HERE/pbs:\$PATH"
    } >"$W/home/.bash_profile"
    daemon head slurmctld -f "$SLURM_CONF" -c -i
    for ((i = 1; i <= N; i++)); do daemon "h$i" slurmd -f "$SLURM_CONF"; done
    until [[ $(sinfo -h -o '%t %D' 2>>"$W/log/head.daemons.log") == "idle $N" ]]; do
        ((++tries < 300))
        sleep 0.05
    done
}
