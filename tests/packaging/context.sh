#!/usr/bin/env bash
# Copies the build context of the image to a new directory: what `docker build` sends, by .dockerignore.
# It knows the patterns that the file uses, all but a list of paths, and refuses others.
set -euo pipefail
to=$1
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
excluded=
while IFS= read -r line; do
    case $line in
    '' | '#'*) ;;
    '*') excluded=all ;;
    '!'*[]*?[]* | '!/'* | '!'*..*) echo "context.sh does not know the pattern $line" >&2; exit 1 ;;
    '!'*)
        path=${line#!}
        [[ -e $path ]] || { echo ".dockerignore names $path, which does not exist" >&2; exit 1; }
        mkdir -p "$to/$(dirname "$path")"
        cp -R "$path" "$to/$path"
        ;;
    *) echo "context.sh does not know the pattern $line" >&2; exit 1 ;;
    esac
done < .dockerignore
[[ $excluded == all ]] || { echo ".dockerignore does not begin with all that there is" >&2; exit 1; }
