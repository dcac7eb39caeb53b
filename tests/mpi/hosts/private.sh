# shellcheck shell=bash
# What a host does not share with the others, in the mount namespace of the caller.

# make_private DIR HOST
make_private() {
    local w=$1 host=$2 home=home
    hostname "$host"
    ip link set lo up
    [[ $host != laptop ]] || home="home-laptop"
    mount --bind "$w/etc/hosts" /etc/hosts
    mount --bind "$w/etc/passwd.$home" /etc/passwd
    mount -t tmpfs -o mode=1777,size=512m tmpfs /dev/shm
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir /run/sshd
    own_directory "$w" "$host" /tmp
    own_directory "$w" "$host" /var/tmp
}

# own_directory DIR HOST PATH: a directory of the host's own takes its place, through which DIR and the source tree can
# still be seen where they lie below it.
own_directory() {
    local w=$1 own=$1/$2$3 path=$3 kept
    mkdir -p "$own"
    chmod 1777 "$own"
    for kept in "$w" "$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)"; do
        [[ $kept == "$path"/* ]] || continue
        mkdir -p "$own/${kept#"$path"/}"
        mount --bind "$kept" "$own/${kept#"$path"/}"
    done
    mount --rbind "$own" "$path"
}
