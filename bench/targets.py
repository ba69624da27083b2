"""What is measured: each group makes targets (name, servers, client); a client runs for some seconds and returns figures."""
import os
import shutil
import subprocess

import once
from harness import (FLOOR, HERE, KEY, LIMITADOR, LOAD, PG_DSN, PG_PORT, PGBIN, REDIS, STORES, TMP, VENV, postgres,
                     redis_server, result_of, start, tidegate)

UPSTREAM_PORT = 27400


def wrk(url, script, **env):
    def run(args, secs):
        command = ["wrk", "-t", str(args.threads), "-c", str(args.conns), "-d", f"{secs}s", "--latency",
                   "-s", f"{HERE}/wrk/{script}", url]
        return result_of(subprocess.run(command, capture_output=True, text=True, check=False,
                                        env={**os.environ, "BENCH_DIR": HERE, "KEY": KEY, **env}))
    return run


def load(kind, port, **options):
    def run(_args, secs):
        words = [f"{name}={value}" for name, value in {"key": KEY, "secs": secs, **options}.items()]
        return result_of(subprocess.run([LOAD, kind, f"http://127.0.0.1:{port}", *words], capture_output=True, text=True,
                                        check=False))
    return run


def sessions(args):
    """Opening and closing a session, two requests of it, beside a check that charges, both durable."""
    node = tidegate("tidegate", 27530, "sessions")
    url = "http://127.0.0.1:27530/"
    return [("tidegate-check-disk", [node], wrk(url, "tidegate_check.lua", ACK="disk")),
            ("tidegate-sessions (half of a session a request)", [node], wrk(url, "tidegate_sessions.lua"))]


def redis_bench(kind):
    """An atomic check and increment in Lua, which has no HTTP, no idempotency key and no record of events."""
    port = str(REDIS[kind])

    def run(args, secs):
        with open(f"{HERE}/redis/check_incr.lua", encoding="utf-8") as script:
            loaded = subprocess.run(["redis-cli", "-p", port, "SCRIPT", "LOAD", script.read()], capture_output=True,
                                    text=True, check=True)

        def requests(count):
            out = subprocess.run(["redis-benchmark", "-p", port, "-c", str(args.conns), "-n", str(count), "-r", "1000",
                                  "--csv", "EVALSHA", loaded.stdout.strip(), "1", "usage:t__rand_int__", "1",
                                  "1000000000000", "2592000"], capture_output=True, text=True, check=True).stdout
            fields = [field.strip('"') for field in out.strip().splitlines()[-1].rsplit('","', 7)]
            return {"rps": float(fields[1]), "p50_ms": float(fields[4]), "p99_ms": float(fields[6])}
        # It is bounded by a count: a short run says how many fit in the time.
        return requests(int(requests(20_000)["rps"] * secs))
    return run


def pgbench(script, clients, events=1, **variables):
    """`events` are counted for each transaction."""
    def run(_args, secs):
        logs = f"{TMP}/pglog"
        shutil.rmtree(logs, ignore_errors=True)
        os.makedirs(logs)
        defined = [word for name, value in variables.items() for word in ("-D", f"{name}={value}")]
        out = subprocess.run(["pgbench", "-n", "-h", "127.0.0.1", "-p", str(PG_PORT), "-U", "postgres", "-M", "prepared",
                              "-c", str(clients), "-j", "2", "-T", str(secs), "-f", f"{HERE}/pg/{script}", "-l",
                              "--log-prefix", f"{logs}/l", *defined, "bench"], capture_output=True, text=True, check=False)
        latencies = []
        for name in os.listdir(logs):
            with open(f"{logs}/{name}", encoding="utf-8") as log:
                latencies += [int(line.split()[2]) for line in log if line.split()[2].isdigit()]
        latencies.sort()
        if not latencies:
            return {"error": out.stderr[-400:]}
        return {"rps": len(latencies) * events / secs, "p50_ms": latencies[len(latencies) // 2] / 1e3,
                "p99_ms": latencies[int(len(latencies) * 0.99)] / 1e3}
    return run


def store(*words):
    def run(_args, secs):
        given = [{"S": str(secs), "D": f"{TMP}/store"}.get(word, word) for word in words]
        out = subprocess.run([STORES, *given], capture_output=True, text=True, check=True).stdout.strip().split("\t")
        names = ("p50_ms", "p99_ms", "bytes_per_event", "cpu_cores")
        return {"rps": float(out[2]), **{name: float(field) for name, field in zip(names, out[3:])}}
    run.nowarm = True
    return run


def floor(mode, port):
    return start(mode, port, [FLOOR, mode, str(port), f"{TMP}/{mode}.bin"])


def uvicorn(port, workers):
    """The seeds' own way: a FastAPI middleware that asks Redis and records in Postgres."""
    env = {"METER": "redis+pg", "REDIS_URL": f"redis://127.0.0.1:{REDIS['everysec']}/0", "PG_DSN": PG_DSN}
    command = [f"{VENV}/bin/uvicorn", "fastapi_app:app", "--host", "127.0.0.1", "--port", str(port), "--workers",
               str(workers), "--no-access-log", "--log-level", "warning"]
    return start("fastapi", port, command, cwd=f"{HERE}/app", env=env)


def http(_args):
    """A check that charges, beside the floors, Limitador, Redis, Postgres and the seeds' own way."""
    node = tidegate("tidegate", 27500, "http")
    check = "http://127.0.0.1:27500/"
    found = [
        ("tidegate-check-memory", [node], wrk(check, "tidegate_check.lua", ACK="memory")),
        ("tidegate-check-disk", [node], wrk(check, "tidegate_check.lua", ACK="disk")),
        ("hyper-check", [floor("hyper-check", 27001)], wrk("http://127.0.0.1:27001/check", "check.lua")),
        ("hyper-durable", [floor("hyper-durable", 27002)], wrk("http://127.0.0.1:27002/check", "check.lua")),
    ]
    if LIMITADOR:
        port = 27100
        server = start("limitador", port, [LIMITADOR, "--http-ip", "127.0.0.1", "--rls-ip", "127.0.0.1", "--http-port",
                                           str(port), "--rls-port", str(port + 1000), f"{HERE}/limitador/limits.yaml",
                                           "memory"])
        found.append(("limitador-memory", [server], wrk(f"http://127.0.0.1:{port}", "limitador.lua")))
    if shutil.which("redis-server"):
        found.append(("redis-always", [redis_server("always")], redis_bench("always")))
    if PGBIN:
        found.append(("postgres-txn", [postgres()], pgbench("check.pgbench", 16)))
    if PGBIN and os.path.exists(f"{VENV}/bin/uvicorn"):
        servers = [uvicorn(27202, 2), redis_server("everysec"), postgres()]
        found.append(("fastapi-redis+pg", servers, wrk("http://127.0.0.1:27202/", "get.lua")))
    return found


def nginx():
    folder = f"{TMP}/nginx"
    os.makedirs(folder, exist_ok=True)
    with open(f"{HERE}/nginx/nginx.conf.in", encoding="utf-8") as template:
        conf = template.read()
    ports = {"DIR": folder, "PROXY": 27410, "AUTH": 27411, "UP": UPSTREAM_PORT, "CHKEMPTY": 27413}
    for name, value in ports.items():
        conf = conf.replace(f"@{name}@", str(value))
    with open(f"{folder}/nginx.conf", "w", encoding="utf-8") as file:
        file.write(conf)
    return start("nginx", 27410, ["nginx", "-p", folder, "-c", f"{folder}/nginx.conf"])


def gateway(_args):
    """Small GETs through a proxy, to an upstream that answers 22 bytes."""
    upstream = start("upstream", UPSTREAM_PORT, [FLOOR, "upstream", str(UPSTREAM_PORT)])
    node = tidegate("tidegate", 27510, "gateway", gateway_port=27511)
    proxies = [("tidegate-gateway", [node, upstream], 27511), ("direct", [upstream], UPSTREAM_PORT)]
    if shutil.which("nginx"):
        proxies += [("nginx-auth_request", [nginx(), upstream], 27411), ("nginx", [nginx(), upstream], 27410)]
    return [(name, servers, wrk(f"http://127.0.0.1:{port}/", "get.lua")) for name, servers, port in proxies]


def events(_args):
    """Events in batches, each with a fresh id: durable, deduplicated, rolled up."""
    node = tidegate("tidegate", 27520, "events")
    found = [(f"tidegate-events-b{batch}", [node], load("events", 27520, batch=batch, conns=8)) for batch in (100, 1000)]
    for batch in (100, 1000):
        found.append((f"sqlite-unique-key-b{batch}", [], store("sqlite-full", str(batch), "S", "D")))
    found.append(("sqlite-append-b1000 (floor)", [], store("sqlite-full", "1000", "S", "D", "append")))
    if PGBIN:
        found.append(("postgres-txn-each", [postgres()], pgbench("check.pgbench", 16)))
        found.append(("postgres-txn-b100", [postgres()], pgbench("events.pgbench", 8, events=100, batch=100)))
        found.append(("postgres-txn-b1000", [postgres()], pgbench("events.pgbench", 4, events=1000, batch=1000)))
    return found


def open_loop(args):
    """Latency from the instant a request was due: at 70 % of the maximum just measured, and at twice the maximum."""
    node = tidegate("tidegate", 27530, "open")
    found = []
    for kind, options in (("events", {"batch": 1000, "conns": 32}), ("check", {"conns": 64})):
        most = load(kind, 27530, **options)(args, args.secs).get("rps", 0)
        for percent in (70, 200):
            client = load(kind, 27530, **options, rate=int(most * percent / 100))
            found.append((f"tidegate-{kind}-at-{percent}% of {most:,.0f}", [node], client))
    return found


def inproc(_args):
    """A decision and its charge in memory, beside a map of counters that knows no plans."""
    return [("tidegate-decide", [], once.decide), ("map-u64", [], store("inproc", "1", "S")),
            ("map-str", [], store("inproc", "1", "S", "str"))]


GROUPS = {"http": http, "gateway": gateway, "events": events, "open": open_loop, "inproc": inproc,
          "sessions": sessions}
ONCE = {"start": once.start_again, "memory": once.memory, "build": once.build}
