# shellcheck shell=bash
# Finds processes by their environment.

# kill_carriers VARIABLE=VALUE...: ends every process of this host that has all of them, but for the caller and what
# called it.
kill_carriers() {
    local dir pid environment wanted above=" $$ " parent=$$
    while ((parent > 1)); do
        parent=$(awk '$1 == "PPid:" { print $2 }' "/proc/$parent/status")
        above+="$parent "
    done
    for dir in /proc/[0-9]*; do
        pid=${dir#/proc/}
        [[ $above != *" $pid "* ]] || continue
        # A process may end between two looks, and its environment then is empty or gone.
        environment=$(tr '\0' '\n' 2>/dev/null <"$dir/environ") || continue
        for wanted; do [[ $'\n'$environment$'\n' == *$'\n'$wanted$'\n'* ]] || continue 2; done
        kill -KILL "$pid" 2>/dev/null || true
    done
}
