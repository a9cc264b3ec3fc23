#!/usr/bin/env bash
# prepare.sh: what a fresh runner needs beyond its image: the compiler of Cargo.toml, and user namespaces, which
# Ubuntu's AppArmor forbids to programs that it does not know.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
version=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
rustup toolchain install "$version" --profile minimal --component clippy,rustfmt
rustup default "$version"
if [[ $(uname -s) == Linux ]]; then
    sudo sysctl --ignore --write kernel.apparmor_restrict_unprivileged_userns=0
fi
