#!/usr/bin/env bash
# changes.sh VERSION [--artifacthub]: the section of a version in CHANGELOG.md, as it is or as the list that Artifact Hub
# reads from the chart's annotation `artifacthub.io/changes`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
section=$(awk -v heading="## [$1]" '
    index($0, "## [") == 1 { inside = index($0, heading) == 1; next }
    inside' CHANGELOG.md)
if [[ ${2-} != --artifacthub ]]; then
    echo "$section"
    exit
fi
# A line that continues an item is indented.
awk '
    function put() { if (item != "") { gsub(/\\/, "&&", item); gsub(/"/, "\\\"", item); printf "- kind: %s\n  description: \"%s\"\n", kind, item } item = "" }
    /^### / { put(); kind = tolower($2); next }
    /^- /   { put(); item = substr($0, 3); next }
    /^  /   { if (item != "") item = item " " substr($0, 3) }
    END     { put() }' <<<"$section"
