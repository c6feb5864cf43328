//! As much as fits. When all units are apart and there are not too many, homes are an assignment of greatest weight (the
//! Hungarian method in Jonker and Volgenant's form, 1987); else greedy, then each unit is moved while that helps.

use std::collections::HashMap;

use super::{Found, Solver};
use crate::core::amounts::Amounts;
use crate::core::pack::Take;

/// Cells of the assignment's matrix.
const CELLS_MAX: usize = 400_000;
/// Rounds in which each unit may move.
const ROUNDS: usize = 3;

impl Solver<'_> {
    pub(super) fn most(&mut self) -> Found {
        let order = self.order();
        let racks: Vec<u32> = (0..self.inventory.racks.len() as u32).collect();
        let alone = order.iter().all(|a| order.iter().all(|b| a == b || self.apart[*a][*b]));
        let near = order.iter().any(|u| self.has_near(*u));
        if near {
            return self.most_near(&order, &racks);
        }
        match alone && order.len() * racks.len() <= CELLS_MAX {
            true => self.assigned(&order, &racks),
            false => self.moved(&order, &racks),
        }
    }

    fn has_near(&self, unit: usize) -> bool {
        let ask = self.ask;
        self.units[unit].groups.iter().any(|g| {
            let shared = |roots: &[u32]| roots.iter().filter(|r| **r == roots[*g as usize]).count() > 1;
            shared(&ask.near_row) || shared(&ask.near_zone)
        })
    }

    /// Hard nearness: the rows and zones are taken one after the other, and the one that holds most is kept.
    fn most_near(&mut self, order: &[usize], racks: &[u32]) -> Found {
        let mut places: Vec<(u32, u32)> = self.inventory.racks.iter().map(|r| (r.zone, r.row)).collect();
        places.sort_unstable();
        places.dedup();
        let roots = &self.ask.near_row;
        let by_row = (0..roots.len()).any(|g| roots[g] != g as u32);
        if !by_row {
            places.dedup_by_key(|(zone, _)| *zone);
        }
        let mut best: Found = vec![];
        let vms = |found: &Found| found.iter().flat_map(|f| &f.2).map(|t| u64::from(t.count)).sum::<u64>();
        for (zone, row) in places {
            for u in order.iter().copied().filter(|u| self.has_near(*u)).collect::<Vec<_>>() {
                self.units[u].zone = Some(zone);
                self.units[u].row = by_row.then_some(row);
            }
            let found = self.moved(order, racks);
            if vms(&found) > vms(&best) {
                best = found;
            }
            if self.budget.0 == 0 {
                break;
            }
        }
        best
    }

    fn allowed(&self, unit: usize, rack: u32) -> bool {
        self.may(unit, rack)
            && self.units[unit]
                .groups
                .iter()
                .all(|g| self.ask.allows(*g as usize, rack))
    }

    fn most_alone(&mut self, unit: usize, rack: u32) -> Vec<Take> {
        if !self.allowed(unit, rack) {
            return vec![];
        }
        let mut rooms = self.rooms(rack);
        self.pack(unit, rack, &mut rooms, false).unwrap_or_default()
    }

    fn assigned(&mut self, order: &[usize], racks: &[u32]) -> Found {
        let mut by_signature: HashMap<usize, Vec<Vec<Take>>> = HashMap::new();
        for u in order {
            let signature = self.units[*u].signature;
            by_signature
                .entry(signature)
                .or_insert_with(|| racks.iter().map(|r| self.most_alone(*u, *r)).collect());
        }
        let count = |takes: &[Take]| takes.iter().map(|t| i64::from(t.count)).sum::<i64>();
        let gains: Vec<Vec<i64>> = order
            .iter()
            .map(|u| {
                by_signature[&self.units[*u].signature]
                    .iter()
                    .map(|t| count(t))
                    .collect()
            })
            .collect();
        let mut found: Found = Vec::new();
        for (row, column) in assignment(&gains).into_iter().enumerate() {
            let Some(column) = column.filter(|c| gains[row][*c] > 0) else {
                continue;
            };
            let takes = by_signature[&self.units[order[row]].signature][column].clone();
            found.push((order[row], racks[column], takes));
        }
        found
    }

    fn moved(&mut self, order: &[usize], racks: &[u32]) -> Found {
        let mut rooms: HashMap<u32, Vec<Amounts>> = HashMap::new();
        let mut homes: HashMap<usize, (u32, Vec<Take>)> = HashMap::new();
        for _ in 0..ROUNDS {
            let mut changed = false;
            for u in order {
                let before: u32 = homes.get(u).map_or(0, |(_, takes)| takes.iter().map(|t| t.count).sum());
                if before == self.units[*u].vms || self.budget.0 == 0 {
                    continue;
                }
                if let Some((rack, takes)) = homes.remove(u) {
                    self.give_back(rooms.entry(rack).or_default(), rack, &takes);
                }
                if let Some((rack, after, takes)) = self.best_home(*u, racks, &rooms, &homes) {
                    changed |= takes.iter().map(|t| t.count).sum::<u32>() > before;
                    rooms.insert(rack, after);
                    homes.insert(*u, (rack, takes));
                }
            }
            if !changed {
                break;
            }
        }
        let mut found: Found = homes.into_iter().map(|(u, (rack, takes))| (u, rack, takes)).collect();
        found.sort_by_key(|(u, ..)| *u);
        found
    }

    fn give_back(&self, rooms: &mut [Amounts], rack: u32, takes: &[Take]) {
        let first = self.inventory.racks[rack as usize].hosts.start;
        for take in takes {
            let needs = self.ask.classes[take.class as usize].needs;
            let room = &mut rooms[take.host - first];
            for (mine, given) in room.0.iter_mut().zip(needs.times(take.count)) {
                *mine += u32::try_from(given).unwrap_or(0);
            }
        }
    }

    fn best_home(
        &mut self,
        unit: usize,
        racks: &[u32],
        rooms: &HashMap<u32, Vec<Amounts>>,
        homes: &HashMap<usize, (u32, Vec<Take>)>,
    ) -> Option<(u32, Vec<Amounts>, Vec<Take>)> {
        let mut best: Option<(u32, u32, Vec<Amounts>, Vec<Take>)> = None;
        for rack in racks {
            let clash = homes
                .iter()
                .any(|(other, (home, _))| home == rack && self.apart[unit][*other]);
            if clash || !self.allowed(unit, *rack) || self.budget.0 == 0 {
                continue;
            }
            let mut after = rooms.get(rack).cloned().unwrap_or_else(|| self.rooms(*rack));
            let takes = self.pack(unit, *rack, &mut after, false).unwrap_or_default();
            let count: u32 = takes.iter().map(|t| t.count).sum();
            if count > best.as_ref().map_or(0, |b| b.0) {
                best = Some((count, *rack, after, takes));
            }
            if count == self.units[unit].vms {
                break;
            }
        }
        best.map(|(_, rack, after, takes)| (rack, after, takes))
    }
}

/// Each row's column so that the sum of gains is greatest; rows beyond the columns get none.
fn assignment(gains: &[Vec<i64>]) -> Vec<Option<usize>> {
    let (rows, columns) = (gains.len(), gains.first().map_or(0, Vec::len));
    // as many columns of no gain as there are rows make sure that every row finds one
    let width = columns + rows;
    let cost = |row: usize, column: usize| if column < columns { -gains[row][column] } else { 0 };
    let (mut u, mut v) = (vec![0i64; rows + 1], vec![0i64; width + 1]);
    let mut row_of = vec![0usize; width + 1];
    for row in 1..=rows {
        let mut way = vec![0usize; width + 1];
        let (mut least, mut done) = (vec![i64::MAX; width + 1], vec![false; width + 1]);
        row_of[0] = row;
        let mut at = 0;
        loop {
            done[at] = true;
            let (from, mut delta, mut next) = (row_of[at], i64::MAX, 0);
            for column in 1..=width {
                if done[column] {
                    continue;
                }
                let reduced = cost(from - 1, column - 1) - u[from] - v[column];
                if reduced < least[column] {
                    least[column] = reduced;
                    way[column] = at;
                }
                if least[column] < delta {
                    delta = least[column];
                    next = column;
                }
            }
            for column in 0..=width {
                if done[column] {
                    u[row_of[column]] += delta;
                    v[column] -= delta;
                } else if least[column] < i64::MAX {
                    least[column] -= delta;
                }
            }
            at = next;
            if row_of[at] == 0 {
                break;
            }
        }
        while at != 0 {
            row_of[at] = row_of[way[at]];
            at = way[at];
        }
    }
    let mut chosen = vec![None; rows];
    for column in 1..=columns {
        if row_of[column] > 0 {
            chosen[row_of[column] - 1] = Some(column - 1);
        }
    }
    chosen
}
