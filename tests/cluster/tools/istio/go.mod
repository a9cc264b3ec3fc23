// Nothing to build: Istio's definitions of its kinds are files of this module.
module countersign.example/tests/cluster/tools/istio

go 1.26.0

require istio.io/api v1.32.0
