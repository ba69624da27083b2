"""Rows that are measured once: the cost of a decision in process, start after a kill, memory, a clean build."""
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import harness
from harness import HERE, LOAD, TMP

ROOT = os.path.dirname(HERE)
PORT = 27540


def decide(_args, secs):
    """`cargo bench -p domain --bench decide`; processor time, so that other programs do not count."""
    out = subprocess.run(["cargo", "bench", "-q", "-p", "domain", "--bench", "decide", "--", str(secs)], cwd=ROOT,
                         capture_output=True, text=True, check=True).stdout
    return {"rps": 1e9 / float(re.search(r"decide\t(\d+) ns", out)[1])}


decide.nowarm = True


def made_ledger(args):
    """The ledger of start and memory; made once, through the engine, and copied for each run."""
    path = f"{TMP}/made-{args.tenants}-{args.ids}.db"
    if not os.path.exists(path):
        subprocess.run(["cargo", "run", "-q", "--release", "-p", "testkit", "--bin", "fill", "--", path,
                        str(args.tenants), str(args.ids)], cwd=ROOT, check=True)
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(f"{TMP}/start.db{suffix}"):
            os.remove(f"{TMP}/start.db{suffix}")
        if os.path.exists(path + suffix):
            shutil.copyfile(path + suffix, f"{TMP}/start.db{suffix}")


def events(secs, tenants, conns=8):
    words = [f"key={harness.KEY}", f"secs={secs}", "batch=1000", f"conns={conns}", f"tenants={tenants}"]
    return harness.result_of(subprocess.run([LOAD, "events", f"http://127.0.0.1:{PORT}", *words], capture_output=True,
                                            text=True, check=False))


def first_answer():
    """Starts the node and asks until it decides; says how long that took."""
    began = time.time()
    harness.tidegate("start", PORT, "start", fresh=False)
    while True:
        try:
            answer = harness.call(PORT, "POST", "/api/v1/check", {"tenant_id": "t17", "meter": "messages", "consume": True})
            return time.time() - began, answer
        except OSError:
            time.sleep(0.005)


def start_again(args):
    """kill -9 in the middle of a load of events, then the time to the first decision."""
    made_ledger(args)
    took, _ = first_answer()
    print(f"first start: {took:.2f} s to the first answer, {args.tenants:,} tenants, {args.ids:,} ids")
    for number in range(args.rounds):
        client = threading.Thread(target=events, args=(args.secs + 5, args.tenants))
        client.start()
        time.sleep(args.secs)
        harness.stop("start", signal.SIGKILL)
        client.join()
        took, answer = first_answer()
        pid = harness.procs["start"].pid
        print(f"start {number} after kill -9 under load: {took:.2f} s to the first answer ({answer['code']}), "
              f"{harness.tree_cpu(pid):.2f} CPU s, {harness.memory_mb(pid)['VmRSS']:.0f} MB", flush=True)


def memory(args):
    """Resident memory with a tenth of the tenants active, ten users each."""
    made_ledger(args)
    first_answer()
    pid = harness.procs["start"].pid
    print("after the start", harness.memory_mb(pid), flush=True)
    active = args.tenants // 10
    words = [f"key={harness.KEY}", f"secs={args.secs}", "batch=1000", "conns=8", f"tenants={active}", "users=10"]
    print(harness.result_of(subprocess.run([LOAD, "events", f"http://127.0.0.1:{PORT}", *words], capture_output=True,
                                           text=True, check=False)))
    print(f"{active:,} tenants active, 10 users each", harness.memory_mb(pid), flush=True)
    time.sleep(5)
    print("five seconds later", harness.memory_mb(pid), flush=True)


def build(_args):
    """A clean release build of the binary."""
    with tempfile.TemporaryDirectory(dir=TMP) as folder:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
        subprocess.run(["cargo", "build", "--release", "-p", "tidegate"], cwd=ROOT, check=True, capture_output=True,
                       env={**os.environ, "CARGO_TARGET_DIR": folder})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        size = os.path.getsize(f"{folder}/release/tidegate") / 1e6
        print(f"clean release build: {cpu:.0f} CPU s, {time.time() - began:.0f} s on the clock; binary {size:.1f} MB")
