# shellcheck shell=bash disable=SC2034
# Finds what is already on the machine. Each find_* sets its variables and succeeds, or fails and installs nothing.

# The wheel is built for the stable interface of this version and later.
PYTHON_MINIMUM=3.11

find_compiler() { command -v cc >/dev/null || command -v gcc >/dev/null; }

# Sets MPICC and MPIEXEC (absolute). A compiler wrapper and a launcher of different MPIs make every rank alone in its
# world, so the launcher beside the wrapper wins over the one on PATH. A wrapper may have any name (mpiicx, Cray's cc).
find_mpi() {
    local wrapper=${MPICC:-mpicc} name beside
    if ! wrapper=$(command -v "$wrapper"); then
        [[ -z ${MPICC:-} ]] || die "MPICC names $MPICC, which is not a command; correct it or unset it."
        return 1
    fi
    name=${wrapper##*/}
    [[ $name == *mpicc* ]] || name=mpicc
    beside=${wrapper%/*}/${name/mpicc/mpiexec}
    [[ -x $beside ]] || beside=${wrapper%/*}/mpiexec
    [[ -x $beside ]] || beside=$(command -v mpiexec) || return 1
    MPICC=$wrapper MPIEXEC=$beside
}

# mpi_name LAUNCHER: `openmpi`, or `mpich` for it and all that descend from it.
mpi_name() {
    local told
    told=$("$1" --version 2>&1) || die "$1 cannot tell its version: $told"
    if [[ $told =~ Open\ MPI|OpenRTE|PRRTE ]]; then echo openmpi; else echo mpich; fi
}

# bindgen loads libclang at build time and needs the headers of the same clang (stddef.h), which Debian packages apart.
find_libclang() {
    local directory
    [[ -z ${LIBCLANG_PATH:-} ]] || return 0
    while read -r directory; do
        compgen -G "$directory/libclang[-.]*so*" >/dev/null || continue
        compgen -G "$directory/clang/*/include/stddef.h" >/dev/null && return 0
        compgen -G "/usr/lib/clang/*/include/stddef.h" >/dev/null && return 0
    done < <(
        llvm-config --libdir 2>/dev/null || true
        printf '%s\n' /usr/lib/llvm-*/lib
        PATH=$PATH:/usr/sbin:/sbin ldconfig -p 2>/dev/null | sed -n 's|.*libclang[-.].*=> \(.*\)/[^/]*$|\1|p'
    )
    return 1
}

# Prints the real executable of a Python that can be embedded and can make environments; else says on stderr why not.
embeddable() {
    "$1" - "$PYTHON_MINIMUM" <<'PYTHON'
import os, sys, sysconfig
minimum = tuple(int(part) for part in sys.argv[1].split("."))
if sys.version_info < minimum:
    sys.exit("is %d.%d where %s or later is needed" % (sys.version_info[0], sys.version_info[1], sys.argv[1]))
import importlib.util
get = sysconfig.get_config_var
# conda's interpreter is linked statically but brings the shared library along.
shared = get("Py_ENABLE_SHARED") or os.path.isdir(os.path.join(sys.base_prefix, "conda-meta"))
library = "libpython%s%s.so" % (get("VERSION"), sys.abiflags)
if not shared or not os.path.exists(os.path.join(get("LIBDIR"), library)):
    sys.exit("has no shared %s in %s" % (library, get("LIBDIR")))
if not os.path.exists(os.path.join(get("INCLUDEPY"), "Python.h")):
    sys.exit("has no headers (Python.h)")
if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
    sys.exit("cannot make environments (no venv)")
print(os.path.realpath(sys._base_executable))
PYTHON
}

# Sets PYO3_PYTHON (absolute, never inside an environment). A PYO3_PYTHON that is already set is used or refused.
find_python() {
    local candidate why
    if [[ -n ${PYO3_PYTHON:-} ]]; then
        command -v "$PYO3_PYTHON" >/dev/null || die "PYO3_PYTHON names $PYO3_PYTHON, which is not a command; name another."
        why=$(embeddable "$PYO3_PYTHON" 2>&1) || die "PYO3_PYTHON names $PYO3_PYTHON, which $why; name another."
        PYO3_PYTHON=$why
        return 0
    fi
    for candidate in python3 /usr/bin/python3 python3.1{4,3,2,1}; do
        command -v "$candidate" >/dev/null || continue
        PYO3_PYTHON=$(embeddable "$candidate" 2>/dev/null) && return 0
    done
    unset PYO3_PYTHON
    return 1
}
