# shellcheck shell=bash
# Rust: the least version, the cargo to use, and which of apt's packages bring one that is new enough.

# Where Ubuntu's versioned packages (rustc-1.91, cargo-1.91) have their commands: rust-1.91/bin, never on PATH.
VERSIONED_RUST=/usr/lib

rust_minimum() { sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml; }

# at_least MINIMUM VERSION
at_least() { [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]; }

# Sets RUST; fails when there is no cargo.
ask_cargo() {
    RUST=$(cargo --version 2>/dev/null) || return 1
    RUST=${RUST#cargo }
    RUST=${RUST%% *}
}

# put_rust_on_path: rustup's directory is on PATH only in shells that were opened after its installation. A cargo that
# is missing or too old gives way to the newest versioned package that will do.
put_rust_on_path() {
    local directory version
    command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    while read -r directory; do
        [[ -x $directory/cargo && -x $directory/rustc ]] || continue
        ask_cargo && at_least "$(rust_minimum)" "$RUST" && return
        version=${directory#"$VERSIONED_RUST/rust-"}
        at_least "$(rust_minimum)" "${version%/bin}" && PATH=$directory:$PATH && return
    done < <(compgen -G "$VERSIONED_RUST/rust-*/bin" | sort -rV)
    return 0
}

# need_newer_rust WHAT-IS-WRONG
need_newer_rust() {
    die "$1 where $(rust_minimum) or later is needed: get it with rustup (https://rustup.rs), or load a newer module, and run this again."
}

# Fails when there is no cargo; a cargo that is too old ends the script.
find_rust() {
    put_rust_on_path
    ask_cargo || return 1
    at_least "$(rust_minimum)" "$RUST" || need_newer_rust "Rust is $RUST"
}

# candidate PACKAGE: the version that apt would install; nothing when it knows none.
candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9]*:\)\{0,1\}\([0-9.]*\).*/\2/p'; }

# new_enough PACKAGE...: apt has each of them in a version that will do.
new_enough() {
    local package version
    for package in "$@"; do
        version=$(candidate "$package")
        at_least "$(rust_minimum)" "${version:-0}" || return 1
    done
}

# Sets `rust_packages`: the distribution's own Rust, or the one that Debian keeps recent for its browsers, or the newest
# that has its version in its name. Asked before anything is installed, so that no Rust is installed in vain.
choose_rust_of_apt() {
    local version
    if new_enough rustc cargo; then
        rust_packages=(rustc cargo rustfmt rust-clippy)
        return
    fi
    if new_enough rustc-web cargo-web; then
        rust_packages=(rustc-web cargo-web rustfmt-web rust-web-clippy)
        return
    fi
    while read -r version; do
        new_enough "rustc-$version" "cargo-$version" || continue
        rust_packages=("rustc-$version" "cargo-$version" "rustfmt-$version" "rust-$version-clippy")
        return
    done < <(apt-cache pkgnames rustc-1. 2>/dev/null | sed -n 's/^rustc-\(1\.[0-9]*\)$/\1/p' | sort -rV)
    version=$(candidate rustc)
    need_newer_rust "there is no Rust here, and apt's is ${version:-missing}"
}
