#!/usr/bin/env bash
# How long any controller takes for new workloads, beside plain Deployments in the same run, and what it uses meanwhile.
# docs/performance.md says how the figures are to be read.
#
# It starts the controller as a process of this machine, so it measures programs that find the cluster by KUBECONFIG.
# Install what the controller needs (definitions, webhooks) first, and stop it if it runs in the cluster already.
# The template is a manifest of one workload of one replica; each __NAME__ in it becomes a name, for 500 workloads
# app-0 to app-499. READY is what is waited for, in the form of `kubectl wait --for=jsonpath=`.
#
#   benches/peers.sh --template rollout.yaml --resource rollouts.countersign.dev --ready '{.status.phase}=Stable' \
#     -- ~/.cache/countersign/target/release/countersign run --identity peers --namespace default
#
# It creates and deletes the namespaces bench-plain and bench-new. Environment: KUBECONFIG, or --kubeconfig FILE;
# IMAGE, of the pods of the Deployments, which that of the template should equal.
set -euo pipefail

number=500
template= resource= ready=
limit=600 # seconds until all must be ready
creators=16 # as in `make bench`
image=${IMAGE:-registry.k8s.io/pause:3.10}

die() {
    echo "peers: $*" >&2
    exit 1
}

usage() {
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
    echo "usage: $0 [--kubeconfig FILE] [--number N] --template FILE --resource RESOURCE --ready PATH=VALUE -- CONTROLLER [ARGUMENT...]"
}

while (($#)); do
    case $1 in
    --kubeconfig) export KUBECONFIG=${2:?} && shift 2 ;;
    --number) number=${2:?} && shift 2 ;;
    --template) template=${2:?} && shift 2 ;;
    --resource) resource=${2:?} && shift 2 ;;
    --ready) ready=${2:?} && shift 2 ;;
    --help) usage && exit ;;
    --) shift && break ;;
    *) usage >&2 && exit 2 ;;
    esac
done
[[ -f $template && -n $resource && $ready == *=* && $# -gt 0 ]] || { usage >&2 && exit 2; }

work=$(mktemp -d)
controller=
end() {
    if [[ -n $controller ]]; then kill "$controller" 2> /dev/null || true; fi
    local made
    for made in "$work"/*.made; do
        if [[ -e $made ]]; then
            kubectl delete namespace "$(basename "$made" .made)" --ignore-not-found --wait=false > /dev/null || true
        fi
    done
    rm -rf "$work"
}
trap end EXIT

# CPU time of the controller so far, in ticks. Its name, the second field, may hold spaces.
ticks=$(getconf CLK_TCK)
cpu() {
    local stat
    stat=$(< "/proc/$controller/stat") || die "the controller has ended"
    read -ra stat <<< "${stat##*) }"
    echo $((stat[11] + stat[12]))
}

# A field of the controller's /proc/PID/status, in MiB.
memory() {
    sed -n "s/^$1:[[:space:]]*\([0-9]*\) kB/\1/p" "/proc/$controller/status" | awk '{ printf "%.1f", $1 / 1024 }'
}

# Waits until the controller uses less than a twentieth of a core over five seconds.
settle() {
    local before
    for ((tries = 0; tries < limit / 5; tries++)); do
        before=$(cpu)
        sleep 5
        if (($(cpu) - before <= ticks / 4)); then return; fi
    done
    die "the controller does not come to rest"
}

# Creates the workloads of a template in a namespace, and prints the seconds until the last of them was ready.
took() {
    local namespace=$1 template=$2 resource=$3 path=${4%=*} value=${4##*=}
    local i watch began name state creating=() deadline
    local -A seen=()
    kubectl create namespace "$namespace" > /dev/null
    touch "$work/$namespace.made"
    for ((i = 0; i < number; i++)); do
        {
            sed "s/__NAME__/app-$i/g" "$template"
            printf '\n---\n'
        } >> "$work/$namespace-$((i % creators)).yaml"
    done
    # One watch sees them all; it is not read by awk, which may wait for a full buffer.
    exec 3< <(exec kubectl get "$resource" --namespace "$namespace" --watch \
        --output "jsonpath={.metadata.name} $path{'\n'}")
    watch=$!
    # If the subshell of $(took) dies, the watch ends with it.
    # shellcheck disable=SC2064 # the local variable is gone by then
    trap "kill $watch 2> /dev/null || true" EXIT
    sleep 2 # until it watches
    began=$(date +%s%N)
    deadline=$((SECONDS + limit))
    for ((i = 0; i < creators && i < number; i++)); do
        kubectl create --validate=false --namespace "$namespace" --filename "$work/$namespace-$i.yaml" > /dev/null &
        creating+=($!)
    done
    while ((${#seen[@]} < number)); do
        ((SECONDS < deadline)) && read -r -t "$limit" -u 3 name state ||
            die "${#seen[@]} of $number in $namespace were ready after $limit s"
        if [[ $state == "$value" ]]; then seen[$name]=1; fi
    done
    began=$(($(date +%s%N) - began))
    for i in "${creating[@]}"; do wait "$i" || die "the workloads of $namespace were not all created"; done
    kill "$watch" 2> /dev/null || true
    exec 3<&-
    awk "BEGIN { printf \"%.1f\", $began / 1e9 }"
}

cat > "$work/deployment.yaml" << MANIFEST
apiVersion: apps/v1
kind: Deployment
metadata: { name: __NAME__ }
spec:
  replicas: 1
  selector: { matchLabels: { app: __NAME__ } }
  template:
    metadata: { labels: { app: __NAME__ } }
    spec:
      securityContext: { runAsNonRoot: true, runAsUser: 65535, seccompProfile: { type: RuntimeDefault } }
      containers:
        - name: app
          image: $image
          securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: [ALL] } }
MANIFEST

echo "peers: $number plain Deployments" >&2
plain=$(took bench-plain "$work/deployment.yaml" deployments.apps '{.status.availableReplicas}=1')
# Their pods would weigh on what follows.
kubectl delete namespace bench-plain > /dev/null

"$@" > "$work/controller.log" 2>&1 &
controller=$!
sleep 5
kill -0 "$controller" 2> /dev/null || die "the controller has ended: $(tail -n 5 "$work/controller.log")"
settle
rested=$(memory VmRSS)
before=$(cpu)
echo "peers: $number of $resource" >&2
new=$(took bench-new "$template" "$resource" "$ready")
settle
used=$(($(cpu) - before))

cat << TABLE
| $number new $resource, $(date -u +%F), $(nproc) cores | |
|---|---|
| plain Deployments to available, s | $plain |
| the controller's to ready, s | $new |
| as a multiple of the Deployments | $(awk "BEGIN { printf \"%.2f\", $new / $plain }") |
| CPU of the controller until it rested, s | $(awk "BEGIN { printf \"%.1f\", $used / $ticks }") |
| resident before, after and at most, MiB | $rested, $(memory VmRSS), $(memory VmHWM) |
TABLE
