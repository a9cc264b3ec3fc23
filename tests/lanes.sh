#!/usr/bin/env bash
# Runs targets of the Makefile at the same time, each line of their output after the target's name. An argument is a lane:
# its targets run one after another until one fails. The other lanes go on, so that one run shows all failures.
set -euo pipefail

lanes=() failed=()
# Bash handles a signal as soon as it waits for a job, and then ends what it has started.
trap 'exit 130' INT TERM HUP
trap 'for lane in "${!lanes[@]}"; do kill -- "-$lane" 2> /dev/null || true; done' EXIT

ended() { wait "$1" || failed+=("${lanes[$1]}"); unset "lanes[$1]"; }

for targets in "$@"; do
    # A session of its own, whose processes one signal ends.
    setsid bash -c 'set -euo pipefail
        for target; do
            "${MAKE:-make}" --no-print-directory "$target" 2>&1 | sed --unbuffered "s/^/$target | /"
        done' lane $targets &
    lanes[$!]=$targets
    # There is only one cluster if it is given.
    [[ -z ${COUNTERSIGN_KUBECONFIG:-} ]] || ended $!
done
for lane in "${!lanes[@]}"; do ended "$lane"; done
((${#failed[@]} == 0)) || { printf 'lanes: failed: %s\n' "${failed[@]}" >&2; exit 1; }
