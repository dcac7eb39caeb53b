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

# seek SYSTEM JOB DIRECTORY: the connection file of a job, or of a cluster of that name, in `file`, and its token, if it has
# one: then it has not ended.
seek() {
    local job="\"job\": \"$1-$2" found
    file='' token=''
    while read -r found; do
        file=$found token=$(text token)
        [[ ! $token ]] || return 0
    done < <(grep -lsF -e "$job\"" -e "$job." "$3"/*.json; ls "$3/$2.json" 2>/dev/null)
}

# owner SYSTEM: the id of the job that the file tells of.
owner() { [[ ! $file ]] || text job | sed "s/^$1-//"; }

# present SYSTEM: whether the file tells of a cluster that can be reached. One that its job has left behind cannot.
present() {
    [[ $token ]] || return 1
    local id
    id=$(owner "$1") && [[ ! $id || $(state "$id") == running ]]
}

# ended SYSTEM ID: why, if the file is of that job; without an id, of whichever it is.
ended() {
    local id
    id=$(owner "$1")
    [[ ! $file || ($2 && ${id%%.*} != "${2%%.*}") ]] || text reason
}

# look SYSTEM JOB DIRECTORY: waits for the cluster and tells of it. Each look prints a line, so that it ends when the
# laptop has gone.
look() {
    local job=${2#"$1"-} dir=${3:-${IPSTEER_DIR:-$HOME/.ipsteer}} pause=3 id now file token why
    # Until a cluster of that name is there, it may become that of the newest job.
    case $job in [0-9]*) id=$job ;; *) id=$(newest) ;; esac
    job=${job:-$id}
    [[ $job ]] || { tell over "you have no job named ipengine; name the job or the cluster" && return; }
    while :; do
        now=$([[ ! $id ]] || state "$id")
        seek "$1" "$job" "$dir"
        if present "$1"; then
            tell name "$(text cluster)" && route && sed 's/^/ipsteer-tunnel json /' "$file" && echo && return
        elif [[ ! $now ]]; then
            why=$(ended "$1" "$id")
            tell over "$job is over, or not known here: ${why:-no word in $dir; see the output of the job}" && return
        fi
        seek "$1" "$id" "$dir"
        if [[ $job != "$id" && $token && $(text cluster) != "$job" ]]; then
            tell over "there is no $job: your newest job, $id, is $(text cluster)" && return
        fi
        tell wait "job $id is ${now/%running/running, its engines are starting}"
        # Schedulers do not like to be asked often.
        [[ $now != running ]] || pause=3
        sleep "$pause"
        pause=$((pause < 30 ? pause + 3 : 30))
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
        declare -f newest state tell text urls route seek owner present ended look
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
            to=$3 && set -- -J "$login" "$(ssh -G "$login" | awk '$1 == "user" { print $2 }')@$2"
            ;;
    esac
    trap 'note "the tunnel is closed; the engines run on" && exit 130' INT
    # ssh runs LocalCommand once the tunnel is open. A shared connection would keep the tunnel open after Ctrl-C.
    ssh -N -a -x -S none -L "127.0.0.1:$port:$to" -o ExitOnForwardFailure=yes -o ServerAliveInterval=15 \
        -o PermitLocalCommand=yes -o LocalCommand="printf '%%s\n' 'The tunnel is open until Ctrl-C. Beside it:' \
        '    ipsteer --connect $copy --url $url status' '    ipsteer.Client(\"$copy\", url=\"$url\")'" "$@" ||
        die "the tunnel has ended; run this again."
}
