#!/usr/bin/env bash
# version.sh TAG: prints the version of a tag `vX.Y.Z`, if it is that of the workspace and of the chart,
# CHANGELOG.md describes it, and its commit, which is checked out, is on main.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tag=$1
version=${tag#v}
[[ $tag =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$ ]] || { echo "the tag $tag is no vX.Y.Z" >&2; exit 1; }
chart=charts/countersign/Chart.yaml
for line in "Cargo.toml:version = \"$version\"" "$chart:version: $version" "$chart:appVersion: \"$version\""; do
    grep --quiet --line-regexp --fixed-strings -- "${line#*:}" "${line%%:*}" ||
        { echo "${line%%:*} has no line: ${line#*:}" >&2; exit 1; }
done
[[ -n $(.github/scripts/changes.sh "$version") ]] || { echo "CHANGELOG.md does not describe $version" >&2; exit 1; }
git merge-base --is-ancestor HEAD origin/main || { echo "the commit of $tag is not on main" >&2; exit 1; }
echo "$version"
