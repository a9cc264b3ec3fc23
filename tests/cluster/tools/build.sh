#!/usr/bin/env bash
# Builds the programs of the test cluster from the Go module proxy and prints, alone on stdout, the
# directory that holds them: controlplane, kubectl, kwok, kwok-stages/*.yaml, prometheus; and, unless it is
# called as `build.sh base`, promtool, alertmanager, traefik, gateway-api/*.yaml, gateway-api-experimental/*.yaml,
# istio/*.yaml, helm.
#
# A first run takes a quarter of an hour on two cores. Each program is kept under a name that holds
# a hash of all it was built from, so an interrupted run continues, a change rebuilds only what it
# touches, and a run with nothing to do takes a moment. Any number of runs may start at once.
#
# COUNTERSIGN_KUBERNETES=1.33 builds that version of the control plane, from controlplane/1.33.mod; a set of each
# version is kept.
set -euo pipefail
shopt -s nullglob
cd "$(dirname "${BASH_SOURCE[0]}")"

say() { printf 'tools: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

command -v go >/dev/null ||
    die "go is not on the PATH; the test cluster needs Go 1.26 or newer: https://go.dev/doc/install"

# Nothing of the caller's Go set-up or of the repository's state may reach the result. Without cgo no
# C compiler is needed and the programs are static.
export CGO_ENABLED=0 GOWORK=off GOFLAGS='-mod=readonly -trimpath -buildvcs=false'
go_version=$(go env GOVERSION GOOS GOARCH)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/countersign/tools
mkdir -p "$cache"
exec 9>>"$cache/lock"
built=() # what the set consists of, as paths relative to $cache
modfile=go # the versions that a module is built with: go.mod and go.sum

# Waits until no other run builds; that run may build just what this one wants, so look again after.
lock() {
    flock -n 9 && return
    say "another run is building; waiting for it"
    flock 9
}

# The hash of everything that decides what a module builds: its files, the compiler, the flags.
hash_of() {
    local module=$1
    { printf '%s\n' "$go_version" "$GOFLAGS" "$@"; cat "$module/$modfile".{mod,sum} "$module"/*.go; } |
        sha256sum | cut -c1-12
}

# Passes on what `go` says, except for its hundreds of download lines, and says once a minute that
# the build goes on.
report() {
    local name=$1 line status next=$((SECONDS + 60)) start=$SECONDS
    while true; do
        status=0
        IFS= read -rt $((next > SECONDS ? next - SECONDS : 1)) line || status=$?
        if ((status == 0)); then
            [[ $line == 'go: downloading '* ]] || say "$name: $line"
        elif ((status < 128)); then # the end of the output; a timeout gives more
            return
        fi
        if ((SECONDS >= next)); then
            say "$name: still building, $((SECONDS - start)) s"
            next=$((next + 60))
        fi
    done
}

# program NAME MODULE PACKAGE [LDFLAGS [TAGS]]: builds NAME, unless it is there.
program() {
    local name=$1 module=$2 package=$3 ldflags=${4-} tags=${5-} file start=$SECONDS
    file=$name-$(hash_of "$module" "$package" "$ldflags" "$tags")
    built+=("$file")
    [[ -e $cache/$file ]] && return
    lock
    [[ -e $cache/$file ]] && return

    say "$name: building"
    rm -f "$cache/$file.part" # of an interrupted run; go writes over nothing that is half a program
    # The build does not inherit the lock (9>&-): what `go` leaves running must not hold it.
    (cd "$module" && nice -n 5 go build -modfile="$modfile.mod" -ldflags "-s -w $ldflags" -tags "$tags" \
        -o "$cache/$file.part" "$package" 2>&1 9>&-) | report "$name" ||
        die "$name: the build failed; see above"
    mv "$cache/$file.part" "$cache/$file" # only now does it count as built
    say "$name: built in $((SECONDS - start)) s"
}

# files NAME MODULE DEPENDENCY GLOB...: a folder NAME of files that come with a dependency of MODULE.
files() {
    local name=$1 module=$2 dependency=$3 dir source
    dir=$name-$(hash_of "$module" "$@")
    shift 3
    built+=("$dir")
    [[ -e $cache/$dir ]] && return
    lock
    [[ -e $cache/$dir ]] && return

    source=$(cd "$module" && go mod download "$dependency" && go list -m -f '{{.Dir}}' "$dependency")
    rm -rf "$cache/$dir.part" && mkdir "$cache/$dir.part"
    # Unquoted, for the globs; without a match `install` fails for want of a file.
    (cd "$source" && install -m 644 $@ "$cache/$dir.part")
    mv -T "$cache/$dir.part" "$cache/$dir"
}

modfile=${COUNTERSIGN_KUBERNETES:-go}
others=$(cd controlplane && echo [0-9]*.mod)
[[ -e controlplane/$modfile.mod ]] ||
    die "COUNTERSIGN_KUBERNETES is $modfile: unset it, or set it to one of: ${others//.mod/}"
# Kubernetes learns its version from the linker; without it every part says v0.0.0.
[[ $(<"controlplane/$modfile.mod") =~ k8s\.io/kubernetes\ (v([0-9]+)\.([0-9]+)\.[^[:space:]]+) ]] ||
    die "controlplane/$modfile.mod does not require k8s.io/kubernetes"
version=k8s.io/component-base/version
kubernetes="-X $version.gitVersion=${BASH_REMATCH[1]}"
kubernetes+=" -X $version.gitMajor=${BASH_REMATCH[2]} -X $version.gitMinor=${BASH_REMATCH[3]}"

program controlplane controlplane . "$kubernetes"
program kubectl controlplane k8s.io/kubernetes/cmd/kubectl "$kubernetes"
modfile=go
program kwok kwok sigs.k8s.io/kwok/cmd/kwok
# The stages that say how kwok's nodes and pods behave.
files kwok-stages kwok sigs.k8s.io/kwok 'kustomize/stage/node/fast/node-*.yaml' \
    'kustomize/stage/pod/fast/pod-*.yaml'
# The tags leave out the service discoveries of two dozen clouds, most of Prometheus.
discoveries=remove_all_sd,enable_kubernetes_sd
program prometheus prometheus github.com/prometheus/prometheus/cmd/prometheus '' $discoveries
if [[ ${1-} != base ]]; then
    program promtool prometheus github.com/prometheus/prometheus/cmd/promtool '' $discoveries
    program alertmanager alertmanager github.com/prometheus/alertmanager/cmd/alertmanager
    program traefik traefik github.com/traefik/traefik/v3/cmd/traefik
    # The kinds that Traefik routes by, of the version that it is built with.
    files gateway-api traefik sigs.k8s.io/gateway-api 'config/crd/standard/*.yaml'
    # Those of the same version that the standard channel lacks.
    files gateway-api-experimental traefik sigs.k8s.io/gateway-api \
        'config/crd/experimental/*_tcproutes.yaml' 'config/crd/experimental/*_tlsroutes.yaml' \
        'config/crd/experimental/*_udproutes.yaml'
    files istio istio istio.io/api kubernetes/customresourcedefinitions.gen.yaml
    program helm helm helm.sh/helm/v4/cmd/helm
fi

# One directory a set, so that a set in use stays as it is while another branch builds its own.
set_dir=$cache/set-$(printf '%s\n' "${built[@]}" | sha256sum | cut -c1-12)
mkdir -p "$set_dir"
for file in "${built[@]}"; do
    link=$set_dir/${file%-*}
    [[ -e $link ]] || ln -sfn "../$file" "$link"
done
printf '%s\n' "$set_dir"
