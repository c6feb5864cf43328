#!/usr/bin/env python3
"""The metal broker beside an exact model (HiGHS): reads instances with our answers, one JSON object a line, on standard input.

    cargo bench -p windlass-metal_broker --features testing --bench metal -- dump 1 400 | python3 bench/metal_exact.py

Needs the package highspy. A binary for each role and machine that may serve it; each machine once; pairs of a role's nodes in one
domain cost the policy's weight, as steps that rise by one each. Ends with 1 when a single pick differs, or a set costs more than
1.01 times the optimum."""

import json
import sys
from collections import defaultdict

import highspy


def solve(inst):
    model = highspy.Highs()
    model.silent()
    model.setOptionValue("mip_rel_gap", 0.0)
    x, cost, by_unit, by_domain = {}, [], defaultdict(list), defaultdict(list)
    for r, wish in enumerate(inst["wishes"]):
        for unit, domain, c in wish["offers"]:
            v = x[r, unit] = model.addBinary()
            cost.append((c / 1e6) * v)
            by_unit[unit].append(v)
            by_domain[r, domain].append(v)
    total = highspy.Highs.qsum
    for r, wish in enumerate(inst["wishes"]):
        mine = [x[r, o[0]] for o in wish["offers"]]
        if len(mine) < wish["count"]:
            return None
        model.addConstr(total(mine) == wish["count"])
    for vs in by_unit.values():
        if len(vs) > 1:
            model.addConstr(total(vs) <= 1)
    for (r, _), vs in by_domain.items():
        wish = inst["wishes"][r]
        most = wish["count"] if wish["per_domain_max"] is None else wish["per_domain_max"]
        steps = []
        for n in range(min(most, wish["count"], len(vs))):
            s = model.addBinary()
            steps.append(s)
            if n:
                cost.append((inst["pair"] * n / 1e6) * s)
        model.addConstr(total(vs) == total(steps))
    model.minimize(total(cost))
    if model.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    return model.getInfo().objective_function_value


def main():
    singles = sets = wrong_fit = wrong_single = beyond = 0
    worst = 1.0
    seeds = []
    for line in sys.stdin:
        inst = json.loads(line)
        seeds.append((inst["seed"], inst["n"]))
        best = solve(inst)
        if (best is not None) != inst["fits"]:
            wrong_fit += 1
            print("seed", inst["seed"], "instance", inst["n"], "fits:", inst["fits"], "optimum:", best)
            continue
        if best is None:
            continue
        ours = inst["cost"] / 1e6
        if sum(w["count"] for w in inst["wishes"]) == 1:
            singles += 1
            if abs(ours - best) > 2e-6:
                wrong_single += 1
                print("seed", inst["seed"], "instance", inst["n"], "single:", ours, "optimum:", best)
        else:
            sets += 1
            ratio = ours / best if best > 1e-9 else (1.0 if ours < 2e-6 else float("inf"))
            worst = max(worst, ratio)
            if ratio > 1.01:
                beyond += 1
                print("seed", inst["seed"], "instance", inst["n"], "set:", ours, "optimum:", best)
    print(f"{len(seeds)} instances, seeds {seeds[0]} to {seeds[-1]}: {singles} single picks, {wrong_single} not the optimum;")
    print(f"{sets} sets, the worst {worst:.6f} times the optimum, {beyond} beyond 1.01; {wrong_fit} wrong about whether it fits")
    sys.exit(1 if wrong_fit or wrong_single or beyond else 0)


if __name__ == "__main__":
    main()
