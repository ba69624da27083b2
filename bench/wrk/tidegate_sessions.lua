-- POST /api/v1/sessions and POST /api/v1/sessions/{id}/close, half of each, cycling over TENANTS tenants. KEY is the API key.
-- What is counted is requests: two are one session.
dofile(os.getenv("BENCH_DIR") .. "/wrk/common.lua")
local n, opens, i, open, headers = tonumber(os.getenv("TENANTS") or "1000"), {}, 0, {}, nil
function init(args)
  headers = { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. os.getenv("KEY") }
  for t = 1, n do
    opens[t] = wrk.format("POST", "/api/v1/sessions", headers, string.format('{"tenant_id":"t%d","meter":"talk"}', t))
  end
  math.randomseed(os.time()); i = math.random(n)
end
function request()
  local id = table.remove(open)
  if id then return wrk.format("POST", "/api/v1/sessions/" .. id .. "/close", headers, "") end
  i = i % n + 1
  return opens[i]
end
-- Of the two answers only the first is about an open session.
function response(status, _, body)
  local id = body:match('"session_id":"([^"]+)"')
  if status == 200 and id and body:find('"status":"open"', 1, true) then open[#open + 1] = id end
end
