#!/usr/bin/env bash
# render.sh [CHART]: prints the chart as Helm renders it for a Kubernetes that has all it can use, without the
# definitions, which are in crds/, and without the pod of `helm test`: what charts/install.yaml holds, for `kubectl apply`
# without Helm.
set -euo pipefail
chart=${1:-$(dirname "$0")/countersign}
kinds=admissionregistration.k8s.io/v1
helm template countersign "$chart" --namespace countersign-system --set crds.enabled=false --skip-tests \
    --api-versions $kinds/ValidatingAdmissionPolicy --api-versions $kinds/MutatingAdmissionPolicy
