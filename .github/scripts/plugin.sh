#!/usr/bin/env bash
# plugin.sh build TARGET OUT: builds the plugin for a target of rustc, and packs it into OUT.
# plugin.sh pack TARGET OUT DIRECTORY: packs the program in a directory.
# The archive is kubectl-countersign-OS-ARCH.tar.gz, in kubectl's names of both, with the licence and the bill of
# materials if there is one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
command=$1 target=$2 out=$3
case $target in
x86_64-*) arch=amd64 ;;
aarch64-*) arch=arm64 ;;
*) echo "plugin.sh does not know the architecture of $target" >&2; exit 1 ;;
esac
program=kubectl-countersign
case $target in
*-linux-musl) os=linux ;;
*-apple-darwin) os=darwin ;;
*-pc-windows-msvc) os=windows program=kubectl-countersign.exe ;;
*) echo "plugin.sh does not know the system of $target" >&2; exit 1 ;;
esac
case $command in
build)
    rustup target add "$target"
    cargo install --quiet --locked cargo-auditable@0.7.7 auditable2cdx@0.1.0
    cargo auditable build --release --locked --package countersign-kubectl --bins --target "$target"
    directory=${CARGO_TARGET_DIR:-target}/$target/release
    auditable2cdx "$directory/$program" > "$directory/kubectl-countersign.cdx.json"
    ;;
pack)
    directory=$4
    ;;
*)
    echo "plugin.sh knows build and pack, not $command" >&2
    exit 1
    ;;
esac
packed=$(mktemp -d)
trap 'rm -rf "$packed"' EXIT
cp "$directory/$program" LICENSE "$packed"
if [[ -e $directory/kubectl-countersign.cdx.json ]]; then
    cp "$directory/kubectl-countersign.cdx.json" "$packed"
fi
mkdir -p "$out"
tar -czf "$out/kubectl-countersign-$os-$arch.tar.gz" -C "$packed" .
