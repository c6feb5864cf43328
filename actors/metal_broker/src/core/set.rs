//! Choosing machines for all nodes of a cluster at once. Nodes of a role are alike, machines are not; a role's nodes are spread over
//! domains, each pair in one domain costs the policy's weight, and a hard bound may stand on it.
//!
//! That is a flow of least cost: role -> (role, domain) with costs that rise by a step with each node -> machine -> sink, each
//! machine once. So the set found is the best there is, not the best one by one. Shortest augmenting paths, one a node.
//!
//! Only the `k` best domains of a role and the `k` best machines in each are looked at, `k` being all nodes: whoever has chosen
//! another could take one of these instead, for the other nodes block at most `k - 1` of them.

use std::collections::{BTreeMap, VecDeque};

/// A machine that may serve a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// What it costs there.
    pub cost: i64,
    /// The machine.
    pub unit: u32,
    /// The domain that the role is spread over.
    pub domain: u32,
}

/// What a role wants of its offers.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Nodes still to be chosen.
    pub count: usize,
    /// Most nodes in one domain.
    pub per_domain_max: Option<usize>,
    /// Nodes that stand already, by domain.
    pub standing: BTreeMap<u32, usize>,
    /// What may be chosen, in any order.
    pub offers: Vec<Offer>,
}

/// What was chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// For each role its machines, with what each costs, by cost and index.
    pub chosen: Vec<Vec<(i64, u32)>>,
    /// What the set costs, spread counted in.
    pub cost: i64,
    /// Nodes of each role without a machine; the choice is of no use unless all are 0.
    pub missing: Vec<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Edge {
    to: usize,
    room: u32,
    cost: i64,
}

#[derive(Debug, Default)]
struct Network {
    edges: Vec<Edge>,
    from: Vec<Vec<usize>>,
}

impl Network {
    fn node(&mut self) -> usize {
        self.from.push(Vec::new());
        self.from.len() - 1
    }
    /// An edge and, beside it, its way back.
    fn edge(&mut self, from: usize, to: usize, room: u32, cost: i64) -> usize {
        let at = self.edges.len();
        self.edges.push(Edge { to, room, cost });
        self.edges.push(Edge {
            to: from,
            room: 0,
            cost: -cost,
        });
        self.from[from].push(at);
        self.from[to].push(at + 1);
        at
    }
    /// One more along the cheapest way; what it costs.
    fn augment(&mut self, source: usize, sink: usize) -> Option<i64> {
        let nodes = self.from.len();
        let (mut best, mut by) = (vec![i64::MAX; nodes], vec![usize::MAX; nodes]);
        let (mut queue, mut queued) = (VecDeque::from([source]), vec![false; nodes]);
        best[source] = 0;
        while let Some(node) = queue.pop_front() {
            queued[node] = false;
            for &at in &self.from[node] {
                let edge = self.edges[at];
                if edge.room > 0 && best[node] + edge.cost < best[edge.to] {
                    best[edge.to] = best[node] + edge.cost;
                    by[edge.to] = at;
                    if !queued[edge.to] {
                        queued[edge.to] = true;
                        queue.push_back(edge.to);
                    }
                }
            }
        }
        if best[sink] == i64::MAX {
            return None;
        }
        let mut node = sink;
        while node != source {
            let at = by[node];
            self.edges[at].room -= 1;
            self.edges[at ^ 1].room += 1;
            node = self.edges[at ^ 1].to;
        }
        Some(best[sink])
    }
}

/// The `k` best domains of a role, and the `k` best machines in each.
fn best(wish: &Wish, k: usize) -> BTreeMap<u32, Vec<Offer>> {
    let mut by_domain: BTreeMap<u32, Vec<Offer>> = BTreeMap::new();
    for offer in &wish.offers {
        let standing = wish.standing.get(&offer.domain).copied().unwrap_or(0);
        if wish.per_domain_max.is_none_or(|max| standing < max) {
            by_domain.entry(offer.domain).or_default().push(*offer);
        }
    }
    let order = |o: &Offer| (o.cost, o.unit);
    for offers in by_domain.values_mut() {
        if offers.len() > k {
            offers.select_nth_unstable_by_key(k - 1, order);
            offers.truncate(k);
        }
        offers.sort_unstable_by_key(order);
    }
    // what stands already makes a domain dearer, so those count apart: the k best of the empty ones are looked at in any case
    let mut empty: Vec<(i64, u32, u32)> = by_domain
        .iter()
        .filter(|(domain, _)| !wish.standing.contains_key(domain))
        .map(|(domain, offers)| (offers[0].cost, offers[0].unit, *domain))
        .collect();
    if empty.len() > k {
        empty.sort_unstable();
        for (.., domain) in empty.drain(k..) {
            by_domain.remove(&domain);
        }
    }
    by_domain
}

/// Chooses. `pair` is what each pair of a role's nodes in one domain costs.
pub fn choose(wishes: &[Wish], pair: i64) -> Choice {
    let k: usize = wishes.iter().map(|w| w.count).sum();
    let mut choice = Choice {
        chosen: vec![Vec::new(); wishes.len()],
        missing: vec![0; wishes.len()],
        cost: 0,
    };
    if k == 0 {
        return choice;
    }
    let mut net = Network::default();
    let (source, sink) = (net.node(), net.node());
    let mut units: BTreeMap<u32, usize> = BTreeMap::new();
    let mut picks = Vec::new();
    let mut enters = Vec::new();
    for (at, wish) in wishes.iter().enumerate() {
        let role = net.node();
        enters.push(net.edge(source, role, u32::try_from(wish.count).unwrap_or(u32::MAX), 0));
        for (domain, offers) in best(wish, k) {
            let inside = net.node();
            let standing = wish.standing.get(&domain).copied().unwrap_or(0);
            let most = wish.per_domain_max.map_or(usize::MAX, |max| max - standing);
            for n in 0..most.min(wish.count).min(offers.len()) {
                net.edge(role, inside, 1, pair * (standing + n) as i64);
            }
            for offer in offers {
                let unit = *units.entry(offer.unit).or_insert_with(|| {
                    let node = net.node();
                    net.edge(node, sink, 1, 0);
                    node
                });
                picks.push((at, offer, net.edge(inside, unit, 1, offer.cost)));
            }
        }
    }
    while let Some(cost) = net.augment(source, sink) {
        choice.cost += cost;
    }
    for (at, offer, edge) in picks {
        if net.edges[edge].room == 0 {
            choice.chosen[at].push((offer.cost, offer.unit));
        }
    }
    for (at, edge) in enters.into_iter().enumerate() {
        choice.missing[at] = net.edges[edge].room as usize;
        choice.chosen[at].sort_unstable();
    }
    choice
}
