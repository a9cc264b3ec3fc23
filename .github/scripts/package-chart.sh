#!/usr/bin/env bash
# package-chart.sh VERSION REPOSITORY IMAGE DIGEST OUT: packs the chart of a release into OUT, with the image by its
# digest, the addresses that only a release knows, and its changes; and renders install.yaml from it, with a
# kustomization.yaml for who patches it.
#   REPOSITORY  https://github.com/OWNER/NAME
#   IMAGE       REGISTRY/PATH
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
version=$1 repository=$2 image=$3 digest=$4
out=$(mkdir -p "$5" && cd "$5" && pwd)
chart=$(mktemp -d)
trap 'rm -rf "$chart"' EXIT
cp -R charts/countersign "$chart"
copy=$chart/countersign
files=$repository/blob/v$version

# replace FILE OLD NEW: refuses a file without the line, so that no release names another image.
replace() {
    grep --quiet --line-regexp --fixed-strings -- "$2" "$1" || { echo "$1 has no line: $2" >&2; exit 1; }
    # By the environment, since awk reads escapes in the values of its options.
    old=$2 new=$3 awk '$0 == ENVIRON["old"] { print ENVIRON["new"]; next } { print }' "$1" > "$1.tmp"
    mv "$1.tmp" "$1"
}
replace "$copy/values.yaml" '  registry: localhost' "  registry: ${image%%/*}"
replace "$copy/templates/_pod.tpl" '{{- $unset := "localhost" }}' "{{- \$unset := \"${image%%/*}\" }}"
replace "$copy/values.yaml" '  repository: countersign' "  repository: ${image#*/}"
replace "$copy/values.yaml" '  digest: ""' "  digest: $digest"
replace "$copy/Chart.yaml" 'annotations:' "home: $repository
sources:
  - $repository
icon: $repository/raw/v$version/docs/icon.svg
annotations:
  artifacthub.io/images: |
    - name: countersign
      image: $image:$version@$digest
      platforms: [linux/amd64, linux/arm64]
  artifacthub.io/links: |
    - name: documentation
      url: $files/README.md
    - name: threat model
      url: $files/docs/security.md
  artifacthub.io/changes: |
$(.github/scripts/changes.sh "$version" --artifacthub | sed 's/^/    /')"
# Artifact Hub shows the page outside the repository.
in_chart=$files/charts/countersign
sed -i.tmp "s#](\.\./\.\./#]($files/#g; s#](admission)#]($in_chart/admission)#g
s#](alerts/#]($in_chart/alerts/#g; s#](dashboards)#]($in_chart/dashboards)#g" "$copy/README.md"
rm "$copy/README.md.tmp"

helm lint --quiet --strict "$copy" >&2
helm package "$copy" --version "$version" --app-version "$version" --destination "$out" >&2
cp crds/*.yaml "$chart"
{
    for file in "$chart"/*.yaml; do
        echo ---
        cat "$file"
    done
    charts/render.sh "$copy"
} > "$out/install.yaml"
cat > "$out/kustomization.yaml" <<'YAML'
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [install.yaml]
YAML
