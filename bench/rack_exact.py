#!/usr/bin/env python3
"""The rack scheduler beside an exact model (HiGHS): reads instances with our answers, one JSON object a line, on standard input.

    cargo bench -p windlass-rack_scheduler --features testing --bench rack -- dump 1 1000 medium | python3 bench/rack_exact.py

Needs the package highspy. What the solver found is kept in the file that --bounds names, so that another version of the scheduler
is compared without solving again. Time-outs are reported apart; a hard constraint is checked by the scheduler's own tests.

All or nothing: first as few pairs of groups as can be between which a preferred relation is not heeded; then, with no more of
them, as few racks as can be. Best effort: as many VMs as can be. A preferred bound per host holds if there is a placement with it."""

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import sys
import time

import highspy

OPTIMAL, INFEASIBLE, TIMEOUT = "optimal", "infeasible", "timeout"


class Model:
    def __init__(self, inst, limit_s, per_host):
        self.inst, self.per_host = inst, per_host
        self.model = highspy.Highs()
        self.model.silent()
        self.model.setOptionValue("time_limit", float(limit_s))
        self.model.setOptionValue("threads", 1)
        hosts = inst["hosts"]
        self.racks = sorted({h["rack"] for h in hosts})
        self.of_rack = {r: [i for i, h in enumerate(hosts) if h["rack"] == r] for r in self.racks}
        self.where = {r: hosts[self.of_rack[r][0]] for r in self.racks}
        self.homes()
        self.vms()
        self.relations()

    def sum(self, terms):
        return highspy.Highs.qsum(list(terms))

    def add(self, constraint):
        self.model.addConstr(constraint)

    def homes(self):
        self.y = {}
        for g, allowed in enumerate(self.inst["allowed"]):
            for r in self.racks:
                self.y[g, r] = self.model.addBinary()
                if r not in allowed:
                    self.add(self.y[g, r] <= 0)
            home = self.sum(self.y[g, r] for r in self.racks)
            self.add(home <= 1 if self.inst["best_effort"] else home == 1)

    def vms(self):
        inst, hosts, classes = self.inst, self.inst["hosts"], self.inst["classes"]
        x, best_effort = {}, inst["best_effort"]
        for g, counts in enumerate(inst["groups"]):
            for c, count in enumerate(counts):
                if count == 0:
                    continue
                carries = inst["carries"][c]
                for r in self.racks:
                    for h in self.of_rack[r]:
                        fits = min([count] + [hosts[h]["room"][d] // n for d, n in enumerate(classes[c]) if n])
                        if self.per_host:
                            fits = min(fits, self.per_host)
                        if fits > 0 and (carries is None or carries[hosts[h]["labels"]]):
                            x[g, c, h] = self.model.addIntegral(lb=0, ub=fits)
                            self.add(x[g, c, h] <= fits * self.y[g, r])
                total = self.sum(x[g, c, h] for h in range(len(hosts)) if (g, c, h) in x)
                self.add(total <= count if best_effort else total == count)
                for r in self.racks:  # tightens the relaxation
                    here = [x[g, c, h] for h in self.of_rack[r] if (g, c, h) in x]
                    if here:
                        self.add(self.sum(here) <= count * self.y[g, r])
                    elif not best_effort:
                        self.add(self.y[g, r] <= 0)
        self.x = x
        on_host = {}
        for (g, c, h), v in x.items():
            on_host.setdefault(h, []).append((g, c, v))
        for h, vms in on_host.items():
            for d, room in enumerate(hosts[h]["room"]):
                terms = [classes[c][d] * v for _, c, v in vms if classes[c][d]]
                if terms:
                    self.add(self.sum(terms) <= room)
            if self.per_host:
                for g in {g for g, _, _ in vms}:
                    terms = [v for gg, _, v in vms if gg == g]
                    if len(terms) > 1:
                        self.add(self.sum(terms) <= self.per_host)

    def relations(self):
        for a, b in self.inst["apart"]:
            for r in self.racks:
                self.add(self.y[a, r] + self.y[b, r] <= 1)
        for kind in ("together", "near_row", "near_zone"):
            for root in sorted(set(self.inst[kind])):
                members = [g for g, r in enumerate(self.inst[kind]) if r == root]
                if len(members) < 2:
                    continue
                # one place for all members that are placed at all
                places = self.places(kind)
                chosen = {p: self.model.addBinary() for p in places}
                self.add(self.sum(chosen.values()) <= 1)
                for g in members:
                    for place, racks in places.items():
                        self.add(self.sum(self.y[g, r] for r in racks) <= chosen[place])

    def places(self, kind):
        key = {"together": "rack", "apart": "rack", "near_row": "row", "near_zone": "zone"}[kind]
        places = {}
        for r in self.racks:
            places.setdefault(self.where[r][key], []).append(r)
        return places

    def broken(self):
        """Pairs of groups between which a preferred relation is not heeded; all groups have homes."""
        pairs = []
        for wish in self.inst["wishes"]:
            groups = wish["groups"]
            if wish["kind"] == "apart":
                for r in self.racks:
                    here, shared = self.sum(self.y[g, r] for g in groups), self.model.addVariable(lb=0)
                    # n groups make n (n - 1) / 2 pairs: the convex hull of that
                    for k in range(1, len(groups)):
                        self.add(shared >= k * here - k * (k + 1) // 2)
                    pairs.append(shared)
                continue
            for n, a in enumerate(groups):
                for b in groups[:n]:
                    pair = self.model.addVariable(lb=0, ub=1)
                    for racks in self.places(wish["kind"]).values():
                        self.add(pair >= self.sum(self.y[a, r] for r in racks) - self.sum(self.y[b, r] for r in racks))
                    pairs.append(pair)
        return self.sum(pairs)

    def fewest_racks(self):
        inst, used = self.inst, {r: self.model.addBinary() for r in self.racks}
        for (_, r), v in self.y.items():
            self.add(v <= used[r])
        # what follows from the rest for whole numbers, and gives the relaxation a bound worth having: a rack holds no more than
        # it has in sum, and of one kind of VM no more than fit on its hosts
        classes = inst["classes"]
        for r in self.racks:
            hosts = [inst["hosts"][h] for h in self.of_rack[r]]
            for d in range(len(classes[0])):
                wanted = [(sum(n * classes[c][d] for c, n in enumerate(counts)), self.y[g, r]) for g, counts in enumerate(inst["groups"])]
                room = sum(h["room"][d] for h in hosts)
                self.add(self.sum(n * y for n, y in wanted if n) <= room * used[r])
            for c, needs in enumerate(classes):
                carries = inst["carries"][c]
                able = [h for h in hosts if carries is None or carries[h["labels"]]]
                fits = sum(min(h["room"][d] // n for d, n in enumerate(needs) if n) for h in able)
                wanted = [(counts[c], self.y[g, r]) for g, counts in enumerate(inst["groups"])]
                self.add(self.sum(n * y for n, y in wanted if n) <= fits * used[r])
        return self.sum(used.values())

    def placed(self):
        return self.sum(self.x.values())

    def answer(self):
        status, info = self.model.getModelStatus(), self.model.getInfo()
        known = {highspy.HighsModelStatus.kOptimal: OPTIMAL, highspy.HighsModelStatus.kInfeasible: INFEASIBLE}
        value = info.objective_function_value if info.primal_solution_status == 2 else None
        return {"status": known.get(status, TIMEOUT), "bound": info.mip_dual_bound, "value": value}

    def least(self, objective):
        self.model.minimize(objective)
        return self.answer()

    def most(self, objective):
        self.model.maximize(objective)
        return self.answer()


def solved(job):
    """What the solver says: `main` is the first aim, `racks` the second where there are wishes; `kept`: with the bound per host."""
    inst, limit_s = job
    per_host, preferred = inst["per_host"], inst["per_host_preferred"]
    if inst["best_effort"]:
        model = Model(inst, limit_s, None if preferred else per_host)
        return {"main": model.most(model.placed())}
    for kept in (True, False):
        model = Model(inst, limit_s, per_host if kept else None)
        main = model.least(model.broken() if inst["wishes"] else model.fewest_racks())
        if not (kept and preferred and per_host and main["status"] == INFEASIBLE):
            break
    found = {"main": main, "kept": kept}
    if inst["wishes"] and main["status"] == OPTIMAL:
        model = Model(inst, limit_s, per_host if kept else None)
        model.add(model.broken() <= round(main["value"]))
        found["racks"] = model.least(model.fewest_racks())
    return found


def up(bound):
    """The least whole number that isn't below a bound that the solver reckoned."""
    return math.ceil(bound - 1e-6)


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * q))] if values else float("nan")


class Report:
    def __init__(self):
        self.seen = self.infeasible = self.solvable = self.uncompared = 0
        self.timeouts, self.open_ours = 0, 0
        self.missed, self.needless, self.ours_ms = [], [], []
        self.racks, self.weight, self.wishes = [], [], []

    def take(self, inst, ours, found):
        self.seen += 1
        self.ours_ms.append(ours["ms"])
        seed, main = inst["seed"], found["main"]
        if main["status"] == INFEASIBLE:
            self.infeasible += 1
            assert not ours["fits"], f"seed {seed}: ours has what can't be"
            assert not inst["planted"], f"seed {seed}: planted, and the model says that it can't be"
            return
        if main["status"] == TIMEOUT:
            self.timeouts += 1
            if main["value"] is None:
                self.open_ours += ours["fits"]
                return
        if inst["best_effort"]:
            self.best_effort(inst, ours, main)
            return
        self.solvable += 1
        if not ours["fits"]:
            self.missed.append(seed)
            return
        if found["kept"] and inst["per_host"] and not ours["per_host_kept"]:
            self.needless.append(seed)
            return
        racks = main
        if inst["wishes"]:
            least = up(main["bound"])
            assert ours["broken"] >= least, f"seed {seed}: ours goes against {ours['broken']} wishes, the model's bound is {least}"
            self.wishes.append((ours["broken"], least, seed, main["status"] == OPTIMAL))
            if "racks" not in found or ours["broken"] > round(main["value"]):
                self.uncompared += 1
                return
            racks = found["racks"]
        least = max(1, up(racks["bound"]))
        assert ours["racks"] >= least, f"seed {seed}: ours uses {ours['racks']} racks, the model's bound is {least}"
        self.racks.append((ours["racks"], least, seed, racks["status"] == OPTIMAL))

    def best_effort(self, inst, ours, main):
        wanted = sum(map(sum, inst["groups"]))
        most = int(min(wanted, main["bound"] + 1e-6))
        assert ours["placed"] <= most, f"seed {inst['seed']}: ours placed {ours['placed']}, the model's bound is {most}"
        self.weight.append((wanted - ours["placed"], wanted - most, inst["seed"], main["status"] == OPTIMAL))
        if round(main["value"]) == wanted:
            self.solvable += 1
            if not ours["fits"]:
                self.missed.append(inst["seed"])

    def print(self):
        print(
            f"{self.seen} instances, {self.infeasible} infeasible, {self.timeouts} time-outs"
            f" (ours had an answer to {self.open_ours} that the solver had none for)"
        )
        if self.solvable:
            placed = self.solvable - len(self.missed)
            print(f"placed where the solver did: {placed} of {self.solvable} ({100 * placed / self.solvable:.2f} %); missed seeds {self.missed}")
        ratios("racks used", self.racks)
        some = [entry for entry in self.weight if entry[1]]
        ratios("unplaced", some)
        none = [entry for entry in self.weight if not entry[1]]
        left = [f"seed {seed}: {ours}" for ours, _, seed, _ in none if ours]
        print(f"where nothing has to stay unplaced: {len(left)} of {len(none)} left something {left}")
        for which, some in (("all", self.wishes), ("proven best", [entry for entry in self.wishes if entry[3]])):
            kept = sum(ours == least for ours, least, _, _ in some)
            more = [f"seed {seed}: {ours} for {least}" for ours, least, seed, _ in some if ours > least]
            print(
                f"preferred relations, {which}: as few pairs gave way as the bound in {kept} of {len(some)};"
                f" pairs in sum {sum(w[0] for w in some)} for {sum(w[1] for w in some)} {more[:20]}"
            )
        print(f"  {self.uncompared} of them not compared by racks: more pairs than the solver's best, or that isn't known")
        print(f"a preferred bound per host gave way without need: {len(self.needless)} {self.needless}")
        print(f"ours: median {quantile(self.ours_ms, .5):.2f} ms, p99 {quantile(self.ours_ms, .99):.2f} ms")


def ratios(what, entries):
    for which, some in (("all", entries), ("proven best", [entry for entry in entries if entry[3]])):
        values = [ours / least for ours, least, _, _ in some]
        print(
            f"{what} over the dual bound, {which}: median {quantile(values, .5):.3f}, p95 {quantile(values, .95):.3f},"
            f" most {max(values, default=float('nan')):.3f} ({len(values)} instances)"
        )
    worst = sorted(((ours / least, seed, f"{ours} for {least}{'' if proven else ' or more'}") for ours, least, seed, proven in entries if ours > least), reverse=True)
    print(f"  above: {len(worst)}: " + ", ".join(f"seed {seed} {text}" for _, seed, text in worst[:20]))


def lines(args, known):
    """Instances, our answers and whether the solver's are known."""
    begun = time.monotonic()
    for line in sys.stdin:
        if args.budget_s and time.monotonic() - begun > args.budget_s:
            return
        inst = json.loads(line)
        ours = inst.pop("ours")
        name = hashlib.sha256(json.dumps(inst, sort_keys=True).encode()).hexdigest()[:24]
        yield inst, ours, name, known.get(name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit-s", type=float, default=20, help="for each instance")
    parser.add_argument("--budget-s", type=float, default=0, help="stop after so long; 0 never")
    parser.add_argument("--jobs", type=int, default=1, help="solvers at once")
    parser.add_argument("--bounds", help="a file that keeps what the solver found")
    args = parser.parse_args()
    known = {}
    if args.bounds and os.path.exists(args.bounds):
        with open(args.bounds) as file:
            for line in file:
                name, found = json.loads(line)
                known[name] = found
    report, waiting = Report(), []
    keep = open(args.bounds, "a") if args.bounds else None
    with multiprocessing.Pool(args.jobs) as pool:
        def take_first():
            inst, ours, name, found = waiting.pop(0)
            if not isinstance(found, dict):
                found = found.get()
                if keep:
                    print(json.dumps([name, found]), file=keep, flush=True)
            report.take(inst, ours, found)

        for inst, ours, name, found in lines(args, known):
            waiting.append((inst, ours, name, found or pool.apply_async(solved, ((inst, args.limit_s),))))
            while len(waiting) > 2 * args.jobs:
                take_first()
        while waiting:
            take_first()
    report.print()


if __name__ == "__main__":
    main()
