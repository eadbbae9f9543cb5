-- Part of other scripts: whether a condition holds for what record() returned.
--
-- holds(condition, operand, kind, version, fence) returns true, false, 'wrong_type' or 'corrupt'.
--   condition: always, absent, present, version (operand: the version), fence (operand: the token as 14 hexadecimal digits)
local function holds(condition, operand, kind, version, fence)
  if kind == 'corrupt' then return 'corrupt' end
  if condition == 'always' then return true end
  if condition == 'absent' then return kind == 'none' end
  if condition == 'present' then return kind ~= 'none' end
  if kind == 'counter' then return 'wrong_type' end
  if condition == 'version' then return kind == 'value' and version == operand end
  -- Tokens stay below 2^53, so a Lua number holds them exactly.
  return kind == 'none' or fence == '' or tonumber(fence, 16) <= tonumber(operand, 16)
end
