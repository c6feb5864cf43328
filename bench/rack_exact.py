#!/usr/bin/env python3
"""The rack scheduler beside an exact model (HiGHS): reads instances with our answers, one JSON object a line, on standard input.

    cargo bench -p windlass-rack_scheduler --features testing --bench rack -- dump 1 1000 medium | python3 bench/rack_exact.py

Needs the package highspy. Time-outs are reported apart; a hard constraint is checked by the scheduler's own tests."""

import argparse
import json
import sys
import time

import highspy


def build(inst, limit_s):
    model = highspy.Highs()
    model.silent()
    model.setOptionValue("time_limit", float(limit_s))
    model.setOptionValue("threads", 1)
    hosts, classes, groups = inst["hosts"], inst["classes"], inst["groups"]
    racks = sorted({h["rack"] for h in hosts})
    of_rack = {r: [i for i, h in enumerate(hosts) if h["rack"] == r] for r in racks}
    where = {r: hosts[of_rack[r][0]] for r in racks}
    best_effort = inst["best_effort"]
    y = {(g, r): model.addBinary() for g in range(len(groups)) for r in racks}
    x = {}
    for g, counts in enumerate(groups):
        home = sum(y[g, r] for r in racks)
        model.addConstr(home <= 1 if best_effort else home == 1)
        for c, count in enumerate(counts):
            if count == 0:
                continue
            for r in racks:
                for h in of_rack[r]:
                    fits = min([count] + [hosts[h]["room"][d] // n for d, n in enumerate(classes[c]) if n])
                    if inst["per_host"]:
                        fits = min(fits, inst["per_host"])
                    if fits > 0:
                        x[g, c, h] = model.addIntegral(lb=0, ub=fits)
                        model.addConstr(x[g, c, h] <= fits * y[g, r])
            total = sum((x[g, c, h] for h in range(len(hosts)) if (g, c, h) in x), start=highspy.highs.highs_linear_expression())
            model.addConstr(total <= count if best_effort else total == count)
            for r in racks:  # tightens the relaxation
                here = [x[g, c, h] for h in of_rack[r] if (g, c, h) in x]
                if here:
                    model.addConstr(sum(here) <= count * y[g, r])
                elif not best_effort:
                    model.addConstr(y[g, r] <= 0)
    for h, host in enumerate(hosts):
        for d, room in enumerate(host["room"]):
            terms = [classes[c][d] * v for (g, c, hh), v in x.items() if hh == h and classes[c][d]]
            if terms:
                model.addConstr(sum(terms) <= room)
        if inst["per_host"]:
            for g in range(len(groups)):
                terms = [v for (gg, c, hh), v in x.items() if hh == h and gg == g]
                if len(terms) > 1:
                    model.addConstr(sum(terms) <= inst["per_host"])
    for a, b in inst["apart"]:
        for r in racks:
            model.addConstr(y[a, r] + y[b, r] <= 1)
    for kind in ("together", "near_row", "near_zone"):
        key = {"together": "rack", "near_row": "row", "near_zone": "zone"}[kind]
        for root in sorted(set(inst[kind])):
            members = [g for g, r in enumerate(inst[kind]) if r == root]
            if len(members) < 2:
                continue
            # one place for all members that are placed at all
            places = sorted({where[r][key] for r in racks})
            chosen = {p: model.addBinary() for p in places}
            model.addConstr(sum(chosen.values()) <= 1)
            for g in members:
                for place in places:
                    model.addConstr(sum(y[g, r] for r in racks if where[r][key] == place) <= chosen[place])
    if best_effort:
        model.maximize(sum(x.values()))
    else:
        used = {r: model.addBinary() for r in racks}
        for (g, r), v in y.items():
            model.addConstr(v <= used[r])
        model.minimize(sum(used.values()))
    return model


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * q))] if values else float("nan")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit-s", type=float, default=20, help="for each instance")
    parser.add_argument("--budget-s", type=float, default=0, help="stop after so long; 0 never")
    args = parser.parse_args()
    begun = time.monotonic()
    solvable = missed = timeouts = infeasible = seen = open_ours = 0
    racks, weight, ours_ms, full = [], [], [], []
    for line in sys.stdin:
        if args.budget_s and time.monotonic() - begun > args.budget_s:
            break
        inst = json.loads(line)
        ours, seen = inst["ours"], seen + 1
        ours_ms.append(ours["ms"])
        model = build(inst, args.limit_s)
        model.run()
        status, info = model.getModelStatus(), model.getInfo()
        has = info.primal_solution_status == 2
        wanted = sum(map(sum, inst["groups"]))
        if status == highspy.HighsModelStatus.kInfeasible:
            infeasible += 1
            assert not ours["fits"], f"seed {inst['seed']}: ours has what can't be"
            continue
        if status != highspy.HighsModelStatus.kOptimal:
            timeouts += 1
            if not has:
                open_ours += ours["fits"]
                continue
        bound = info.mip_dual_bound
        if inst["best_effort"]:
            most = int(min(wanted, bound + 1e-6))
            left, left_ours = wanted - most, wanted - ours["placed"]
            weight.append((left_ours, left, inst["seed"]))
            if round(info.objective_function_value) == wanted:
                solvable += 1
                if not ours["fits"]:
                    missed += 1
                    full.append(inst["seed"])
        else:
            solvable += 1
            if not ours["fits"]:
                missed += 1
                full.append(inst["seed"])
                continue
            racks.append(ours["racks"] / max(1, int(bound + 1 - 1e-6)))
    print(f"{seen} instances, {infeasible} infeasible, {timeouts} time-outs (ours had an answer to {open_ours} that the solver had none for)")
    if solvable:
        print(f"placed where the solver did: {solvable - missed} of {solvable} ({100 * (solvable - missed) / solvable:.2f} %); missed seeds {full}")
    print(f"racks used over the dual bound: median {quantile(racks, .5):.3f}, p95 {quantile(racks, .95):.3f}, most {max(racks, default=0):.3f} ({len(racks)} instances)")
    some = [ours / left for ours, left, _ in weight if left]
    none = sum(1 for ours, left, _ in weight if not left and ours)
    worst = sorted(((ours / left, seed, f"{ours} for {left}") for ours, left, seed in weight if left and ours > left), reverse=True)
    print(f"unplaced over the dual bound: median {quantile(some, .5):.3f}, p95 {quantile(some, .95):.3f} ({len(some)} instances with a bound above 0); where the bound is 0: {none} of {sum(1 for _, left, _ in weight if not left)} left something")
    print("more unplaced than the bound: " + (", ".join(f"seed {seed} {what}" for _, seed, what in worst[:20]) or "none"))
    print(f"ours: median {quantile(ours_ms, .5):.2f} ms, p99 {quantile(ours_ms, .99):.2f} ms")


if __name__ == "__main__":
    main()
