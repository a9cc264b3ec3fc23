#!/usr/bin/env bash
# build.sh MDBOOK TO: builds the site into the directory TO; `make docs` runs it.
# Every file is in the site at its path in the repository, so relative links hold in both and none is rewritten.
set -euo pipefail
mdbook=$1 to=$2
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# What pages link to; tests/site.rs refuses links to anything else.
files=(
    docs examples integrations charts/install.yaml charts/countersign/README.md
    crates/core/src/analysis/query/presets.yaml
    README.md LICENSE CHANGELOG.md ROADMAP.md ARCHITECTURE.md CONTRIBUTING.md MAINTAINERS.md
    SECURITY.md
)
book=$(mktemp -d)
trap 'rm -rf "$book"' EXIT
mkdir "$book/src"
tar -c "${files[@]}" | tar -x -C "$book/src"
mv "$book/src/docs/book.toml" "$book"
rm "$book/src/docs/SUMMARY.md"
# The summary of a book is at its root; the decisions are its last part.
{
    sed 's#](#](docs/#; s#](docs/\.\./#](#' docs/SUMMARY.md
    for page in docs/decisions/[0-9]*.md; do
        echo "    - [$(sed -n '1s/^# //p' "$page")]($page)"
    done
} > "$book/src/SUMMARY.md"
"$mdbook" build --dest-dir "$to" "$book" 2>&1 | tee "$book/log"
if grep -q 'WARN\|ERROR' "$book/log"; then
    echo "docs/build.sh: mdbook warned" >&2
    exit 1
fi
