# shellcheck shell=bash
# The laptop's side of a cluster in a batch job, whatever the batch system: scripts/slurm/tunnel.sh and
# scripts/pbs/tunnel.sh say how to ask theirs, in two functions that run on the login node:
#   newest      prints the id of the user's newest job named ipengine
#   state JOB   prints "running", or "waiting" and why; nothing when the job is over or unknown
# Laptops may have an old bash: nothing here is newer than 3.2.

# --- on the login node -----------------------------------------------------------------------------------------------

# tell KIND TEXT: a line for the laptop, told from what the user's login files print.
tell() { printf 'ipsteer-tunnel %s\n' "$*"; }

# text FIELD, urls: from the connection file, which has a line for each.
text() { sed -n "s/^ *\"$1\": \"\(.*\)\",\{0,1\}$/\1/p" "$file"; }
urls() { sed -n 's|^ *"wss://\(.*\)/",\{0,1\}$|\1|p' "$file"; }

# Where the gateway answers, as seen from here. A node's name is tried before its addresses, of which some may lead
# nowhere; this host's own loopback never leads there.
route() {
    local to host
    for to in "$(text host):$(urls | sed -n '1s/.*://p')" $(urls); do
        host=${to%:*} && host=${host#[} && host=${host%]}
        case $host in 127.* | ::1 | localhost) continue ;; esac
        # shellcheck disable=SC2016
        timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$host" "${to##*:}" 2>/dev/null || continue
        tell login "$to" && return
    done
    tell node "$(text host) $(urls | head -n 1)"
}

# look SYSTEM JOB DIRECTORY: waits for the cluster and tells of it. Each look prints a line, so that it ends when the
# laptop has gone.
look() {
    local job=${2#"$1"-} dir=${3:-${IPSTEER_DIR:-$HOME/.ipsteer}} file now
    [[ $job ]] || job=$(newest)
    [[ $job ]] || { tell over "you have no job named ipengine; name the job or the cluster" && return; }
    while :; do
        now=$(state "$job")
        for file in "$dir/$1-$job".json "$dir/$1-$job".*.json "$dir/$job.json"; do [[ ! -f $file ]] || break; done
        if [[ $now != waiting* && -f $file ]] && grep -q '"token": "' "$file" && [[ $now || ${file##*/} == "$job.json" ]]; then
            tell name "$(text cluster)" && route && sed 's/^/ipsteer-tunnel json /' "$file" && echo && return
        elif [[ ! $now ]]; then
            [[ ! -f $file ]] || now=$(text reason)
            tell over "$job is over, or not known here: ${now:-no word in $dir; see the output of the job}" && return
        fi
        tell wait "job $job is ${now/%running/running, its engines are starting}"
        sleep 3
    done
}

# --- on the laptop ---------------------------------------------------------------------------------------------------

# fetch SYSTEM LOGIN JOB DIRECTORY: asks the login node, saves the connection file, sets `copy` and `via`.
fetch() {
    local mark kind rest said=
    copy='' via=''
    while read -r mark kind rest; do
        [[ $mark == ipsteer-tunnel ]] || continue
        case $kind in
            wait) [[ $rest == "$said" ]] || note "$rest" && said=$rest ;;
            over) die "$rest" ;;
            name) copy=$kept/$rest.json && : >"$copy.part" ;;
            json) printf '%s\n' "$rest" >>"$copy.part" ;;
            login | node) via="$kind $rest" ;;
        esac
    done < <({
        declare -f newest state tell text urls route look
        printf 'look %q %q %q\n' "$1" "$3" "$4"
    } | ssh -T "$2" bash -l -s)
    [[ $copy && $via ]] || die "ssh $2 brought no answer."
    mv "$copy.part" "$copy"
}

# free_port NAME: the same for the same job as long as it is free, so that clients find a tunnel that was opened again.
free_port() {
    local digits=${1//[!0-9]/}
    local port=$((20000 + 10#0${digits:0:9} % 10000))
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
    echo "$port"
}

# tunnel SYSTEM LOGIN [JOB [DIRECTORY]]
tunnel() {
    local login=${2:-} port url to kept=${IPSTEER_DIR:-$HOME/.ipsteer}/tunnels
    case $login in
        --help | -h) usage; exit ;;
        "" | -*) usage >&2; exit 2 ;;
    esac
    umask 077 && mkdir -p "$kept"
    fetch "$1" "$login" "${3:-}" "${4:-}"
    port=$(free_port "${copy##*/}") && url=wss://127.0.0.1:$port/
    # shellcheck disable=SC2086
    set -- $via
    case $1 in
        login) to=$2 && set -- "$login" ;;
        node)
            note "$login does not reach the gateway: trying ssh to $2 itself"
            to=$3 && set -- -J "$login" "$(printf '%s\n' "$login" | sed -n 's/@.*/@/p')$2"
            ;;
    esac
    trap 'note "the tunnel is closed; the engines run on" && exit 130' INT
    # ssh runs LocalCommand once the tunnel is open. A shared connection would keep the tunnel open after Ctrl-C.
    ssh -N -a -x -S none -L "127.0.0.1:$port:$to" -o ExitOnForwardFailure=yes -o ServerAliveInterval=15 \
        -o PermitLocalCommand=yes -o LocalCommand="printf '%%s\n' 'The tunnel is open until Ctrl-C. Beside it:' \
        '    ipsteer --connect $copy --url $url status' '    ipsteer.Client(\"$copy\", url=\"$url\")'" "$@" ||
        die "the tunnel has ended; run this again."
}
