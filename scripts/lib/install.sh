# shellcheck shell=bash
# Installs what find.sh did not find: system packages, Rust, cargo-nextest.

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

# candidate PACKAGE: the version that apt would install; nothing when it knows none.
candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9]*:\)\{0,1\}\([0-9.]*\).*/\2/p'; }

# Where the distribution's python3 is too old: the versioned package that Ubuntu 22.04 has beside it.
add_newer_python() {
    at_least "$PYTHON_MINIMUM" "$(candidate python3)" ||
        missing+=("python$PYTHON_MINIMUM-dev" "python$PYTHON_MINIMUM-venv")
}

# apt's version is asked for first, so that a distribution's old Rust is not installed in vain.
check_rust_of_apt() {
    local version
    version=$(candidate rustc)
    at_least "$(rust_minimum)" "${version:-0}" || need_newer_rust "there is no Rust here, and apt's is ${version:-missing}"
}
