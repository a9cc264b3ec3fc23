#!/usr/bin/env bash
# krew.sh VERSION REPOSITORY SUMS: krew's manifest of a release, from .krew.yaml and the checksums of the archives.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
version=$1 repository=$2 sums=$3
while IFS= read -r line; do
    line=${line//VERSION/v$version}
    line=${line//REPOSITORY/$repository}
    if [[ $line =~ SHA256\((.*)\) ]]; then
        archive=${BASH_REMATCH[1]}
        sum=$(awk -v archive="$archive" '$2 == archive || $2 == "*" archive { print $1 }' "$sums")
        [[ -n $sum ]] || { echo "$sums has no line for $archive" >&2; exit 1; }
        line=${line%%SHA256*}\"$sum\"
    fi
    printf '%s\n' "$line"
done < <(grep -v '^#' .krew.yaml)
