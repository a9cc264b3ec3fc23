#!/usr/bin/env bash
# image.sh name OWNER/NAME: the image of a repository; a registry takes no capital letters.
# image.sh build IMAGE TARGET: builds and pushes a target of the Dockerfile for this machine's architecture, with SBOM and
# provenance, and prints its digest.
# image.sh index IMAGE VERSION DIGEST…: makes one image of them under the tag, and prints its digest.
# The registry is logged into before. Each architecture is built on a machine of its own: emulated, the link-time
# optimisation takes hours.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
command=$1 image=$2
shift 2
case $command in
name)
    echo "ghcr.io/${image,,}"
    ;;
build)
    metadata=$(mktemp)
    trap 'rm -f "$metadata"' EXIT
    # Only a builder in a container attaches SBOM and provenance.
    docker buildx inspect countersign > /dev/null 2>&1 ||
        docker buildx create --name countersign --driver docker-container >&2
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) docker buildx build . --builder countersign --target "$1" \
        --output "type=image,name=$image,push-by-digest=true,name-canonical=true,push=true,rewrite-timestamp=true" \
        --sbom=true --provenance=mode=max --metadata-file "$metadata" \
        --label "org.opencontainers.image.source=${REPOSITORY:?}" \
        --label "org.opencontainers.image.revision=$(git rev-parse HEAD)" \
        --label org.opencontainers.image.licenses=Apache-2.0 >&2
    jq --exit-status --raw-output '."containerimage.digest"' "$metadata"
    ;;
index)
    version=$1
    shift
    docker buildx imagetools create --tag "$image:$version" "${@/#/$image@}" >&2
    docker buildx imagetools inspect "$image:$version" --format '{{ json .Manifest }}' |
        jq --exit-status --raw-output .digest
    ;;
*)
    echo "image.sh knows name, build and index, not $command" >&2
    exit 1
    ;;
esac
