# shellcheck shell=bash
# What is skipped is seen: scripts/test and every test append to $IPENGINE_TEST_SKIPS, a line each: reason, tab, what.

# skip WHAT REASON
skip() {
    note "$2: $1"
    [[ -z ${IPENGINE_TEST_SKIPS:-} ]] || printf '%s\t%s\n' "$2" "$1" >>"$IPENGINE_TEST_SKIPS"
}

# tell_skips: each reason once, with what it has cost.
tell_skips() {
    [[ -s ${IPENGINE_TEST_SKIPS:-} ]] || return 0
    printf '\n== skipped\n'
    sort -u "$IPENGINE_TEST_SKIPS" | while IFS=$'\t' read -r reason what; do
        [[ $reason == "${said-}" ]] || note "$reason:"
        said=$reason
        note "    $what"
    done
}
