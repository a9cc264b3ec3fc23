#!/usr/bin/env bash
# Runs both commands of the README, `make demo` and `make test`, as an ordinary user does: from a fresh clone of the last
# commit, with a home, caches and a build of its own, and 1,024 open files. Root becomes a user who can read nothing of
# root's; any other user stays itself. What was downloaded or built before is copied, the programs of
# this repository are not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf 'ordinary-user: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

# Not that of a service.
readonly id=61235
# Not /tmp, which may be memory: a build takes gigabytes.
base=$(mktemp -d "${TMPDIR:-/var/tmp}/countersign-user-XXXXXX")
trap 'rm -rf "$base"' EXIT
home=$base/home
mkdir -p "$home/.cargo" "$home/.cache/countersign/tools"

# Copies what is there.
copy() {
    local source
    for source in "${@:2}"; do
        [[ ! -e $source ]] || cp -R --reflink=auto "$source" "$1"
    done
}

git clone --quiet --no-hardlinks . "$home/countersign"
tools=$(tests/cluster/tools/build.sh)
for program in "$tools"/*; do
    copy "$home/.cache/countersign/tools/" "$(readlink -f "$program")"
done
copy "$home/.cache/countersign/" "${XDG_CACHE_HOME:-$HOME/.cache}/countersign"/mdbook-*
mkdir "$home/.cargo/registry"
cargo=${CARGO_HOME:-$HOME/.cargo}
copy "$home/.cargo/registry/" "$cargo/registry/index" "$cargo/registry/cache"
copy "$home/.cargo/" "$cargo/config.toml"
# The compiler itself, as rustup looks for it in the caller's home.
compiler=$(rustc --print sysroot)

become=()
if ((EUID == 0)); then
    copy "$base/compiler" "$compiler"
    compiler=$base/compiler
    chown -R "$id:$id" "$base"
    # `ssh-keygen`, with which git signs, refuses a user without an entry. This mount namespace alone has one.
    printf 'ordinary:x:%s:%s::%s:/bin/bash\n' "$id" "$id" "$home" | cat /etc/passwd - >"$base/passwd"
    chmod 644 "$base/passwd"
    become=(unshare --mount -- bash -c 'mount --bind "$0" /etc/passwd && exec "$@"' "$base/passwd"
        setpriv "--reuid=$id" "--regid=$id" --clear-groups --inh-caps=-all --)
fi
own=("${become[@]}" env --unset=XDG_CACHE_HOME --unset=XDG_RUNTIME_DIR --unset=GOPATH --unset=GOMODCACHE --unset=GOCACHE
    --unset=CARGO_HOME --unset=CARGO_TARGET_DIR --unset=RUSTUP_HOME --unset=RUSTUP_TOOLCHAIN --unset=TMPDIR
    --unset=KUBECONFIG --unset=MAKEFLAGS --unset=MAKELEVEL --chdir="$home/countersign"
    HOME="$home" USER=ordinary LOGNAME=ordinary PATH="$compiler/bin:$PATH")

if ((EUID == 0)); then
    [[ $("${own[@]}" id -u) == "$id" ]] || die "setpriv did not change the user"
    ! "${own[@]}" test -r /root || die "user $id can read /root: it is not like an ordinary user's machine"
fi
"${own[@]}" go version >/dev/null || die "go is not on a path that every user can read: install it under /usr/local"
"${own[@]}" cargo --version >/dev/null

ulimit -Sn 1024
for target in demo test; do
    say "make $target"
    began=$SECONDS
    "${own[@]}" make "$target"
    say "make $target took $((SECONDS - began)) s"
done

# A process that a program leaves behind, such as the telemetry of `go`, takes a moment to end.
running() { find /proc -maxdepth 1 -uid "$id" -name '[0-9]*' -printf '%f '; }
if ((EUID == 0)); then
    for ((tries = 0; tries < 30; tries++)); do
        [[ -n $(running) ]] || break
        sleep 1
    done
    [[ -z $(running) ]] || die "processes of the user are left: $(running)"
fi
[[ -z $("${own[@]}" git status --porcelain) ]] || die "the clone is not as it was"
say "both succeeded"
