#!/usr/bin/env bash
# Runs targets of the Makefile at the same time, each line of their output after the target's name. An argument is a lane:
# its targets run one after another until one fails. The other lanes go on, so that one run shows the first failure of each.
set -euo pipefail

lanes=() failed=0
# Bash handles a signal as soon as it waits for a job, and then ends what it has started.
trap 'exit 130' INT TERM HUP
trap 'for lane in "${!lanes[@]}"; do kill -- "-$lane" 2> /dev/null || true; done; wait' EXIT

ended() { wait "$1" || failed=1; unset "lanes[$1]"; }

for targets in "$@"; do
    # A session of its own, whose processes one signal ends.
    setsid bash -c 'set -euo pipefail
        for target; do
            "${MAKE:-make}" --no-print-directory "$target" 2>&1 | sed --unbuffered "s/^/$target | /" ||
                { echo "lanes: $target failed" >&2; exit 1; }
        done' lane $targets &
    lanes[$!]=$targets
    # There is only one cluster if it is given.
    [[ -z ${COUNTERSIGN_KUBECONFIG:-} ]] || ended $!
done
for lane in "${!lanes[@]}"; do ended "$lane"; done
exit "$failed"
