#!/usr/bin/env python3
"""Tidegate beside its floors and rivals, on one machine in one run. See README.md.

usage: run.py GROUP [--rounds 3] [--secs 8] [--warm 2] [--conns 32] [--only a,b] [--out results.jsonl]

Groups: http gateway events open inproc sessions start memory build.

Rounds are interleaved (A B C, A B C, ...), so that a drift of the machine's speed touches every target alike: quote the
ratios. All servers of a group run for the whole group (an idle one costs no CPU); each is stopped by its own pid."""
import argparse
import json
import os
import resource
import statistics
import sys
import time

import harness
import targets
from harness import TMP


def measure(args, name, servers, client):
    """One run of one target, with the processors that servers, client and everybody else took meanwhile."""
    pids = [harness.procs[server].pid for server in servers]
    busy, cpu = harness.busy(), [harness.tree_cpu(pid) for pid in pids]
    own, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    result = client(args, args.secs)
    took, own_after = time.time() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    client_cpu = own_after.ru_utime + own_after.ru_stime - own.ru_utime - own.ru_stime
    result["client_cores"] = round(client_cpu / took, 2)
    result["server_cores"] = [round((harness.tree_cpu(pid) - before) / took, 2) for pid, before in zip(pids, cpu)]
    all_cores = (harness.busy()[0] - busy[0]) / took
    result["other_cores"] = round(all_cores - result["client_cores"] - sum(result["server_cores"]), 2)
    result["stolen_cores"] = round((harness.busy()[1] - busy[1]) / took, 2)
    result.update(target=name, conns=args.conns, secs=args.secs, at=time.strftime("%F %T"), load1=os.getloadavg()[0])
    return result


def row(name, results):
    results = [result for result in results if "rps" in result]
    if not results:
        return f"| {name} | failed | | | | | | |"

    def median(of):
        return statistics.median(map(of, results))

    def cores(result):
        return sum(result["server_cores"]) or result.get("cpu_cores", 0)

    rates = [result["rps"] for result in results]
    servers = "+".join(f"{statistics.median(each):.2f}" for each in zip(*(r["server_cores"] for r in results)))
    per_cpu = f"{median(lambda r: r['rps'] / cores(r)):,.0f}" if all(map(cores, results)) else ""
    trouble = " **errors**" if any(r.get("non2xx") or r.get("sock_err") for r in results) else ""
    return (
        f"| {name} | {statistics.median(rates):,.0f} [{min(rates):,.0f}–{max(rates):,.0f}] "
        f"| {median(lambda r: r.get('p50_ms', 0)):.3f} | {median(lambda r: r.get('p99_ms', 0)):.3f} "
        f"| {servers or f'{median(cores):.2f}'} | {per_cpu} | {median(lambda r: r['client_cores']):.2f} "
        f"| {median(lambda r: r['other_cores']):.2f} |{trouble}"
    )


def table(results):
    """Medians over the rounds. "per server CPU s" divides by the cores of all servers: it holds better on a busy machine."""
    print("| target | per second, median [min–max] | p50 ms | p99 ms | server cores | per server CPU s | client cores | others' cores |")
    print("|---|---|---|---|---|---|---|---|")
    for name, of_target in results.items():
        print(row(name, of_target))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("group", choices=[*targets.GROUPS, *targets.ONCE])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--secs", type=int, default=8)
    parser.add_argument("--warm", type=int, default=2)
    parser.add_argument("--conns", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help="targets, separated by commas")
    parser.add_argument("--tenants", type=int, default=1_000_000, help="for start and memory")
    parser.add_argument("--ids", type=int, default=100_000_000, help="for start and memory")
    parser.add_argument("--out", default=f"{TMP}/results.jsonl")
    args = parser.parse_args()
    os.makedirs(TMP, exist_ok=True)
    if args.group in targets.ONCE:
        try:
            targets.ONCE[args.group](args)
        finally:
            harness.stop_all()
        return
    results = {}
    try:
        chosen = [t for t in targets.GROUPS[args.group](args) if not args.only or t[0] in args.only.split(",")]
        for number in range(args.rounds):
            for name, servers, client in chosen:
                if not getattr(client, "nowarm", False):
                    client(args, args.warm)
                result = measure(args, name, servers, client)
                result.update(group=args.group, round=number)
                with open(args.out, "a", encoding="utf-8") as out:
                    out.write(json.dumps(result) + "\n")
                results.setdefault(name, []).append(result)
                shown = {k: v for k, v in result.items() if k not in ("group", "target", "round", "at")}
                print(number, name, shown, file=sys.stderr, flush=True)
    finally:
        harness.stop_all()
    table(results)


main()
