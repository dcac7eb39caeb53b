# shellcheck shell=bash
# What every script says, and how it gives up.

# step TEXT: a heading with the seconds since the script began.
step() { printf '\n== [%4d s] %s\n' "$SECONDS" "$*"; }

# note TEXT: one line about something done or found.
note() { printf '   %s\n' "$*"; }

# die TEXT: one sentence on stderr, exit code 1.
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# usage: the comment block at the top of the calling script is its help.
usage() { sed -n '2,/^[^#]/ { s/^# \{0,1\}//p; }' "$0"; }
