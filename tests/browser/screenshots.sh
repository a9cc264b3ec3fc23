#!/usr/bin/env bash
# screenshots.sh DEMO PLUGIN TO: runs the demo in the cluster of KUBECONFIG, and writes dashboard-light.png and
# dashboard-dark.png of its rollback into TO; `make screenshots` runs it.
set -euo pipefail
demo=$1 plugin=$2 to=$3
scratch=$(mktemp -d)
processes=()
trap 'kill "${processes[@]}" 2> /dev/null || true; rm -rf "$scratch"' EXIT
"$plugin" dashboard -A --no-browser > "$scratch/address" &
processes+=($!)
"$demo" &
running=$!
processes+=("$running")
until [ -s "$scratch/address" ]; do
    kill -0 "${processes[0]}" # it has not ended
    sleep 0.2
done
node "$(dirname "$0")/screenshots.mjs" "$(cat "$scratch/address")" "$to"
wait "$running"
