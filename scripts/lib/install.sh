# shellcheck shell=bash
# Installs what was not found: system packages, cargo-nextest. What scripts/test wants beside that needs skips.sh, too.

# as_root COMMAND...: directly as root, else through sudo.
as_root() { if ((EUID == 0)); then "$@"; else sudo "$@"; fi; }

# need_apt PACKAGE...: ends the script, naming the packages, unless they can be installed.
need_apt() {
    command -v apt-get >/dev/null ||
        die "there is no apt-get here: install the counterparts of these Debian packages and run this again: $*."
    ((EUID == 0)) || command -v sudo >/dev/null ||
        die "without root or sudo nothing can be installed: ask for these packages (Rust alone comes with rustup, too, without root) and run this again: $*."
}

# apt PACKAGE...
apt() {
    note "installing with apt: $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

# Read by Debian's packages when they want to start a service, and where systemd keeps what starts with the machine.
POLICY=/usr/sbin/policy-rc.d
UNITS=/etc/systemd/system

# units: the services and sockets that start with the machine.
units() {
    [[ ! -d $UNITS ]] ||
        find "$UNITS" -type l \( -path '*.wants/*.service' -o -path '*.wants/*.socket' \) -exec basename {} \; | sort -u
}

# apt_idle PACKAGE...: installs them; no service that they bring starts, neither now nor with the machine. A policy that
# is there is left alone. A subshell, so that its trap undoes all whatever ends it.
apt_idle() (
    before=$(units) made=''
    trap 'idle_again "$before" "$made"' EXIT
    if [[ ! -e $POLICY ]]; then
        made=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$POLICY" >/dev/null
        as_root chmod 755 "$POLICY"
    fi
    apt "$@"
)

# idle_again BEFORE MADE: the end of apt_idle: what started with the machine before, whether the policy is ours.
idle_again() {
    local brought
    [[ -z $2 ]] || as_root rm -f "$POLICY"
    brought=$(comm -13 <(echo "$1") <(units))
    # shellcheck disable=SC2086
    [[ -z $brought ]] || ! command -v systemctl >/dev/null || as_root systemctl --quiet disable $brought
}

# Where the distribution's python3 is too old: the versioned package that Ubuntu 22.04 has beside it.
add_newer_python() {
    at_least "$PYTHON_MINIMUM" "$(candidate python3)" ||
        missing+=("python$PYTHON_MINIMUM-dev" "python$PYTHON_MINIMUM-venv")
}

# want_nextest: the runner of the Rust tests; cargo finds it in its own directory, which need not be on PATH.
want_nextest() {
    cargo nextest --version >/dev/null 2>&1 && return
    note "installing cargo-nextest from source (some minutes)"
    # The last that is content with the Rust that the project asks for.
    cargo install --quiet --locked cargo-nextest@0.9.120
}

# want_fortran: only tests use it. Where it cannot be had, the tests of Fortran's output are skipped, and say so.
want_fortran() {
    command -v gfortran >/dev/null && return
    if command -v apt-get >/dev/null && { ((EUID == 0)) || command -v sudo >/dev/null; }; then
        as_root apt-get update -qq && apt gfortran && return
    fi
    skip "tests of Fortran's output" "there is no gfortran"
}

# want_mpi NAME: openmpi or mpich beside another MPI, under the names of Debian's commands. Where it cannot be had it fails,
# and says what is left out.
want_mpi() {
    local -A packages=([openmpi]="openmpi-bin libopenmpi-dev" [mpich]="mpich libmpich-dev")
    command -v "mpicc.$1" >/dev/null && return
    if command -v apt-get >/dev/null && { ((EUID == 0)) || command -v sudo >/dev/null; }; then
        # shellcheck disable=SC2086
        as_root apt-get update -qq && apt ${packages[$1]} && command -v "mpicc.$1" >/dev/null && return
    fi
    skip "every test under a second MPI" "there is no mpicc.$1"
    return 1
}

# want_hosts: virtual hosts with Slurm, the look of PBS and sshd. Tests that need what cannot be had are skipped, and say
# so.
want_hosts() {
    local program missing=() PATH=$PATH:/usr/sbin:/sbin
    local -A package=([slurmctld]=slurmctld [slurmd]=slurmd [sbatch]=slurm-client [qsub]=slurm-wlm-torque
        [sshd]=openssh-server [ssh]=openssh-client [ip]=iproute2 [unshare]=util-linux [ps]=procps)
    for program in "${!package[@]}"; do command -v "$program" >/dev/null || missing+=("${package[$program]}"); done
    ((${#missing[@]} > 0)) || return 0
    if command -v apt-get >/dev/null && { ((EUID == 0)) || command -v sudo >/dev/null; }; then
        as_root apt-get update -qq && apt_idle "${missing[@]}" slurm-wlm-basic-plugins && return
    fi
    skip "tests on virtual hosts that need them" "not here: ${missing[*]}"
}
