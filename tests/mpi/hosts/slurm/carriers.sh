# shellcheck shell=bash
# Finds processes by their environment, for the scripts that Slurm runs at the end of steps and jobs.

# These scripts and what they start are no part of a job, though Slurm gives them its variables. A process shows the
# environment that it began with: this marks what is started, subshells are known by their command line.
export AT_THE_END=yes

# carriers VARIABLE=VALUE...: every process of this host that has all of them, but for what runs at the end.
carriers() {
    local dir environment wanted
    for dir in /proc/[0-9]*; do
        # A process may end between two looks, and what it shows then is empty or gone.
        environment=$(tr '\0' '\n' 2>/dev/null <"$dir/environ") || continue
        for wanted in "$@"; do [[ $'\n'$environment$'\n' == *$'\n'$wanted$'\n'* ]] || continue 2; done
        [[ $'\n'$environment != *$'\n'AT_THE_END=yes* ]] || continue
        [[ $(command_of "${dir#/proc/}") != *epilog.sh* ]] || continue
        echo "${dir#/proc/}"
    done
}

# command_of PID
command_of() { tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" || true; }

# kill_carriers WHAT VARIABLE=VALUE...: ends them. What has not ended by itself within a second is left over: it is
# written into log/killed.log as host, WHAT (job or step) and command line.
kill_carriers() {
    local pid pids command looks=0
    while pids=$(carriers "${@:2}") && [[ $pids ]] && ((++looks <= 20)); do sleep 0.05; done
    for pid in $pids; do
        command=$(command_of "$pid")
        kill -KILL "$pid" 2>/dev/null || continue
        echo "$(uname -n) $1 ${command% }" >>"${SLURM_CONF%/slurm/slurm.conf}/log/killed.log"
    done
}
