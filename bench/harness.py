"""Starts and stops servers on 127.0.0.1, and asks /proc what they cost."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
TMP = os.environ.get("BENCH_TMP") or os.path.join(tempfile.gettempdir(), "tidegate-bench")
TICK = os.sysconf("SC_CLK_TCK")
KEY = "bench-admin-key-0123456789abcdef0123456789abcdef"


def binary(name, default):
    return os.environ.get(name.upper(), default)


RS = f"{HERE}/rs/target/release"
TIDEGATE = binary("tidegate", f"{HERE}/../target/release/tidegate")
FLOOR, STORES, LOAD = (binary(name, f"{RS}/{name}") for name in ("floor", "stores", "load"))
LIMITADOR = os.environ.get("LIMITADOR")
VENV = os.environ.get("VENV", f"{TMP}/venv")
PGBIN = os.environ.get("PGBIN") or os.path.dirname(shutil.which("postgres") or "")

# Every port is below the ephemeral range, or a client's socket may hold it.
PG_PORT, REDIS = 25432, {"everysec": 26381, "always": 26382}
PG_DSN = f"postgresql://postgres@127.0.0.1:{PG_PORT}/bench"
procs = {}


def tree_cpu(pid):
    """CPU seconds of pid, its live descendants, and those it has reaped."""
    children, ticks = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry))
            ticks[int(entry)] = sum(map(int, fields[11:15]))
    todo, total = [pid], 0
    while todo:
        pid = todo.pop()
        total += ticks.get(pid, 0)
        todo += children.get(pid, [])
    return total / TICK


def busy():
    """CPU seconds that the whole machine has been busy (all but idle, iowait and steal), and stolen ones."""
    with open("/proc/stat", encoding="utf-8") as file:
        fields = list(map(int, file.readline().split()[1:9]))
    return (fields[0] + fields[1] + fields[2] + fields[5] + fields[6]) / TICK, fields[7] / TICK


def memory_mb(pid):
    """Resident memory now and at most, and the part of it that is the process's own (not the page cache)."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        fields = dict(line.split(":", 1) for line in file if ":" in line)
    return {name: int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM", "RssAnon")}


def wait_port(port, secs=60):
    for _ in range(secs * 100):
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.01)
    sys.exit(f"nothing listens on {port}; its log is in {TMP}")


def start(name, port, command, env=None, cwd=None):
    if name not in procs:
        with open(f"{TMP}/{name}.log", "w", encoding="utf-8") as log:
            procs[name] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=cwd,
                                           env={**os.environ, **(env or {})}, start_new_session=True)
        wait_port(port)
    return name


def stop(name, how=signal.SIGTERM):
    process = procs.pop(name)
    process.send_signal(signal.SIGINT if name == "postgres" else how)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def stop_all():
    for name in reversed(list(procs)):
        stop(name)


def tidegate(name, api_port, ledger, gateway_port=None, fresh=True):
    """A node on a ledger of its own, or on the one that is there already."""
    path = f"{TMP}/{ledger}.db"
    if fresh and name not in procs:
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(path + suffix):
                os.remove(path + suffix)
    gateway = f"127.0.0.1:{gateway_port}" if gateway_port else "off"
    env = {"TIDEGATE_ADMIN_KEY": KEY, "TIDEGATE_LEDGER_URL": f"sqlite:{path}", "TIDEGATE_LOG_LEVEL": "warn",
           "TIDEGATE_API_LISTEN": f"127.0.0.1:{api_port}", "TIDEGATE_GATEWAY_LISTEN": gateway}
    return start(name, api_port, [TIDEGATE, "serve", "--config", f"{HERE}/tidegate.toml"], env=env)


def call(port, method, path, body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method,
                                     data=None if body is None else json.dumps(body).encode(),
                                     headers={"authorization": f"Bearer {KEY}", "content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"null")


def redis_server(kind):
    folder = f"{TMP}/redis-{kind}"
    if f"redis-{kind}" not in procs:
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
    return start(f"redis-{kind}", REDIS[kind], [
        "redis-server", "--bind", "127.0.0.1", "--port", str(REDIS[kind]), "--dir", folder, "--save", "",
        "--daemonize", "no", "--appendonly", "yes", "--appendfsync", kind])


def postgres():
    if "postgres" in procs:
        return "postgres"
    folder, scratch = f"{TMP}/pg", tempfile.gettempdir()
    as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.getuid() == 0 else []
    if not os.path.exists(f"{folder}/PG_VERSION"):
        os.makedirs(folder, exist_ok=True)
        if as_postgres:
            shutil.chown(folder, "postgres")
            os.chmod(TMP, 0o755)
        subprocess.run([*as_postgres, f"{PGBIN}/initdb", "-D", folder, "-A", "trust", "-U", "postgres"], check=True,
                       stdout=subprocess.DEVNULL, cwd=scratch)
    options = ["listen_addresses=127.0.0.1", "shared_buffers=1GB", "max_wal_size=8GB", "checkpoint_timeout=15min",
               "max_connections=200"]
    start("postgres", PG_PORT, [*as_postgres, f"{PGBIN}/postgres", "-D", folder, "-p", str(PG_PORT), "-k", scratch,
                                *(word for option in options for word in ("-c", option))], cwd=scratch)
    psql = ["psql", "-qXh", "127.0.0.1", "-p", str(PG_PORT), "-U", "postgres"]
    for _ in range(100):
        if subprocess.run([*psql, "-c", "SELECT 1"], capture_output=True, check=False).returncode == 0:
            break
        time.sleep(0.1)
    subprocess.run([*psql, "-c", "CREATE DATABASE bench"], capture_output=True, check=False)
    subprocess.run([*psql, "-f", f"{HERE}/pg/schema.sql", "bench"], check=True, capture_output=True)
    return "postgres"


def result_of(output):
    found = re.search(r"RESULT (\{.*\})", output.stdout)
    if output.stderr.strip() and "RESULT" not in output.stderr:
        print(output.stderr.strip()[-400:], file=sys.stderr)
    return json.loads(found[1]) if found else {"error": (output.stdout + output.stderr)[-400:]}
