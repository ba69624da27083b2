-- POST /api/v1/check with consume, cycling over TENANTS tenants. ACK is disk or memory; KEY the API key.
dofile(os.getenv("BENCH_DIR") .. "/wrk/common.lua")
local n, reqs, i = tonumber(os.getenv("TENANTS") or "1000"), {}, 0
function init(args)
  for t = 1, n do
    reqs[t] = wrk.format("POST", "/api/v1/check",
      { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. os.getenv("KEY") },
      string.format('{"tenant_id":"t%d","meter":"messages","consume":true,"ack":"%s"}', t, os.getenv("ACK") or "disk"))
  end
  math.randomseed(os.time()); i = math.random(n)
end
function request() i = i % n + 1; return reqs[i] end
