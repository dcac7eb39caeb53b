# shellcheck shell=bash
# The environment that scripts/setup found or made, for every other script: root directory, VENV, PYO3_PYTHON, MPICC,
# MPIEXEC, cargo on PATH. Nothing of .venv goes on PATH: a build must not change with what is installed there.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$ROOT" || exit 1
# Where tests and examples look for what is built, whatever the user's own habit.
export CARGO_TARGET_DIR=$ROOT/target
export ROOT VENV=$ROOT/.venv
# Written by scripts/setup; also the proof that the environment is complete.
RECORD=$VENV/setup.env

# shellcheck source=scripts/lib/say.sh
source "$ROOT/scripts/lib/say.sh"
# shellcheck source=scripts/lib/rust.sh
source "$ROOT/scripts/lib/rust.sh"

# Open MPI 4 and 5 refuse to run as root (in a container, say) unless told twice.
if ((EUID == 0)); then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    export PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

put_rust_on_path

# load: takes over what scripts/setup recorded. The launcher on PATH has to be the one of the MPI that is built against.
load() {
    [[ -f $RECORD ]] || die "run scripts/setup first."
    # shellcheck disable=SC1090
    source "$RECORD"
    [[ $MPIEXEC != */mpiexec || $(command -v mpiexec) -ef $MPIEXEC ]] || PATH=${MPIEXEC%/*}:$PATH
}

# use_build: engines and clients from target/release, with the project's Python for the engines.
use_build() { export PATH=$ROOT/target/release:$PATH VIRTUAL_ENV=$VENV; }
