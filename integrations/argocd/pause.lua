local change = obj.status.change
return { {
  operation = "create",
  resource = {
    apiVersion = "countersign.dev/v1alpha1",
    kind = "Intervention",
    metadata = {
      -- Argo CD leaves out Lua's string library, so a long name could not be cut.
      generateName = "pause-",
      namespace = obj.metadata.namespace,
      ownerReferences = { {
        apiVersion = obj.apiVersion,
        kind = obj.kind,
        name = obj.metadata.name,
        uid = obj.metadata.uid,
      } },
    },
    spec = {
      rollout = obj.metadata.name,
      rolloutUid = obj.metadata.uid,
      run = change.run,
      digest = change.digest,
      action = "Pause",
      reason = "requested in Argo CD",
      -- Kubernetes before 1.36 does not fill in who asks. There, name the account by which Argo CD writes:
      -- person = { username = "system:serviceaccount:argocd:argocd-server" },
    },
  },
} }
