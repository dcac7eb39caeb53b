#!/usr/bin/env bash
# Usage: cluster.sh DIR N [slurm] [pbs]
#
# N virtual hosts h1..hN, a login node `head` and a `laptop`, each with its own name, address (10.77.0.0/24), processes,
# /dev/shm, /tmp and sshd; all else of the file system is shared. Works as root and as an ordinary user.
#   slurm  Slurm on head and h1..hN
#   pbs    makes that Slurm look like PBS to jobs (see pbs/)
# DIR is an empty directory for everything that the hosts write; the user's home on them is DIR/home, DIR/home-laptop there.
#
# Prints `ready`, then obeys orders on standard input, one a line: `HOST COMMAND LINE`. Each is run there with all
# capabilities and answered by its exit code; what it prints goes to DIR/log/orders.log. At the end of the input all
# hosts end, with every process on them.
set -eEuo pipefail
shopt -s nullglob

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
W=$1 N=$2 FEATURES=" ${*:3} "
# Says of a process that it belongs to the hosts and to no job.
export VIRTUAL_HOSTS=$W

wants() { [[ $FEATURES == *" $1 "* ]]; }

# address HOST
address() {
    case $1 in
        head) echo 10.77.0.254 ;;
        laptop) echo 10.77.0.200 ;;
        h*) echo "10.77.0.${1#h}" ;;
    esac
}

# outside: makes the namespaces of `head` and goes on in them.
enter() {
    local user=()
    ((EUID == 0)) || user=(--user --map-current-user --keep-caps)
    export VIRTUAL_HOSTS_INSIDE=1
    # No signal reaches the hosts at the death of whoever started this: they end with their standard input, which the
    # kernel closes whatever kills it. If `unshare` itself is killed, --kill-child ends them.
    exec unshare "${user[@]}" --net --uts --ipc --mount --pid --fork --kill-child --mount-proc "$0" "$@"
}

# write_files: what hosts and users find at the usual places.
write_files() {
    local i home
    mkdir -p "$W"/{run,log,etc}
    {
        printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n'
        for i in "${HOSTS[@]}"; do echo "$(address "$i") $i"; done
    } >"$W/etc/hosts"
    ssh-keygen </dev/null -q -t ed25519 -N '' -C virtual -f "$W/etc/key"
    for home in home home-laptop; do
        mkdir -p "$W/$home/.ssh"
        # The entry of this user, with another home directory.
        { getent passwd | awk -F: -v uid="$EUID" '$3 != uid'; echo "$(id -un):x:$EUID:$(id -g)::$W/$home:/bin/bash"; } \
            >"$W/etc/passwd.$home"
        cp "$W/etc/key" "$W/$home/.ssh/id_ed25519"
        cat >"$W/$home/.ssh/config" <<END
Host *
    Port 2222
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
END
    done
    cat >"$W/etc/sshd_config" <<END
Port 2222
HostKey $W/etc/key
AuthorizedKeysFile $W/etc/key.pub
PidFile none
UsePAM no
UseDNS no
StrictModes no
PasswordAuthentication no
PrintMotd no
AllowStreamLocalForwarding yes
MaxStartups 100
Subsystem sftp internal-sftp
SetEnv "PATH=$PATH" OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
END
}

# on HOST COMMAND...: with all capabilities, as seen from here.
on() {
    local host=$1
    shift
    if [[ $host == head ]]; then "$@"; else nsenter -t "$(<"$W/run/$host.pid")" -n -u -i -m -p -- "$@"; fi
}

# daemon HOST COMMAND...: without the capabilities that only this script needs.
daemon() {
    local host=$1
    shift
    on "$host" setpriv --inh-caps=-all --ambient-caps=-all "$@" </dev/null >>"$W/log/$host.daemons.log" 2>&1
}

start_host() {
    local host=$1 tries=0 outer pid
    unshare --net --uts --ipc --mount --pid --fork --kill-child --mount-proc "$HERE/host.sh" "$W" "$host" \
        </dev/null >"$W/log/$host.log" 2>&1 &
    outer=$!
    until [[ -e $W/run/$host.up ]]; do
        ((++tries < 500))
        sleep 0.01
    done
    pid=$(ps -o pid= --ppid "$outer" | tr -d ' ')
    echo "$pid" >"$W/run/$host.pid"
    ip link add "v-$host" type veth peer name eth0 netns "$pid"
    ip link set "v-$host" master br0 up
    on "$host" ip addr add "$(address "$host")/24" dev eth0
    on "$host" ip link set eth0 up
}

start_head() {
    # shellcheck source=tests/mpi/hosts/private.sh
    source "$HERE/private.sh"
    make_private "$W" head
    ip link add br0 type bridge
    ip addr add "$(address head)/24" dev br0
    ip link set br0 up
}

start_all() {
    local host
    start_head
    for host in "${HOSTS[@]:1}"; do start_host "$host"; done
    for host in "${HOSTS[@]}"; do daemon "$host" /usr/sbin/sshd -f "$W/etc/sshd_config" -E "$W/log/$host.sshd.log"; done
    if wants slurm || wants pbs; then
        # shellcheck source=tests/mpi/hosts/slurm/start.sh
        source "$HERE/slurm/start.sh"
        start_slurm
    fi
}

obey() {
    local host line code
    while read -r host line; do
        code=0
        { echo "+ $host: $line"; } >>"$W/log/orders.log"
        on "$host" timeout 20 bash -c "$line" </dev/null >>"$W/log/orders.log" 2>&1 || code=$?
        echo "$code"
    done
}

[[ -n ${VIRTUAL_HOSTS_INSIDE:-} ]] || enter "$@"
unset VIRTUAL_HOSTS_INSIDE
HOSTS=(head laptop)
for ((i = 1; i <= N; i++)); do HOSTS+=("h$i"); done
exec 2>"$W/cluster.log"
trap 'echo "cluster.sh:$LINENO: failed: $BASH_COMMAND" >&2' ERR
write_files
start_all
echo ready
obey
