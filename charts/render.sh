#!/usr/bin/env bash
# Prints the chart as Helm renders it for a Kubernetes that has all it can use, without the definitions, which
# are in crds/, and without the pod of `helm test`: what charts/install.yaml holds, for `kubectl apply` without Helm.
set -euo pipefail
cd "$(dirname "$0")"
kinds=admissionregistration.k8s.io/v1
helm template countersign countersign --namespace countersign-system --set crds.enabled=false --skip-tests \
    --api-versions $kinds/ValidatingAdmissionPolicy --api-versions $kinds/MutatingAdmissionPolicy
