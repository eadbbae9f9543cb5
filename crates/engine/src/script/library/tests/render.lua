local function render(v, depth)
    local t = type(v)
    if t == "string" then
        return 's:"' .. (v:gsub("[^%w%p ]", function(c) return ("\\%03d"):format(c:byte()) end)) .. '"'
    elseif t == "number" then
        return "n:" .. ("%.17g"):format(v)
    elseif t == "table" then
        if depth > 6 then return "{...}" end
        local parts = {}
        for k, x in pairs(v) do parts[#parts + 1] = render(k, depth + 1) .. "=" .. render(x, depth + 1) end
        table.sort(parts)
        return "{" .. table.concat(parts, " ") .. "}"
    elseif v == cjson.null then
        return "null"
    elseif t == "function" or t == "thread" or t == "userdata" then
        return t
    end
    return tostring(v)
end
local function results(ok, ...)
    local parts = {}
    for i = 1, select("#", ...) do parts[i] = render((select(i, ...)), 1) end
    return (ok and "" or "error ") .. table.concat(parts, ", ")
end
local function snippet()
--SNIPPET--
end
return results(pcall(snippet))
