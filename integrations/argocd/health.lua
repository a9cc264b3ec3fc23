-- A Rollout of countersign.dev follows kstatus: observedGeneration, Reconciling, Stalled and Ready. Healthy is what
-- kstatus reads as Current, Degraded what it reads as Failed, and both others are its InProgress.
local health = {
  status = "Progressing",
  message = "the Countersign operator has not observed this generation yet",
}
local status = obj.status
if status == nil or status.observedGeneration ~= obj.metadata.generation then
  return health
end
health.message = status.message or ""
local is = {}
for _, condition in ipairs(status.conditions or {}) do
  is[condition.type] = condition.status == "True"
end
if is.Stalled then
  health.status = "Degraded"
elseif is.Ready then
  health.status = "Healthy"
elseif status.waitingKind == "People" or status.waitingKind == "Requested" then
  -- Sign-off, a pause, a freeze, a turn in the queue: it goes on once somebody, or another Rollout, lets it.
  health.status = "Suspended"
end
return health
