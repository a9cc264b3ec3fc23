-- Exactly the two commands that admission accepts from a machine: both stop a change, which is safe. An approval, a
-- promotion or a retry needs a person's own name.
local change = obj.status and obj.status.change
local underWay = change ~= nil and change.outcome == nil and not change.initial
local actions = {}
actions["abort"] = {
  ["disabled"] = not underWay,
  ["displayName"] = "Abort",
  ["iconClass"] = "fa fa-fw fa-undo",
}
actions["pause"] = {
  ["disabled"] = not underWay or change.pausedBy ~= nil,
  ["displayName"] = "Pause",
  ["iconClass"] = "fa fa-fw fa-pause",
}
return actions
