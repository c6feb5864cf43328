//! As much as fits. When all units are apart and there are not too many, homes are an assignment of greatest weight; else
//! greedy, each unit where most of it fits, then units are moved and exchanged while that helps ([`super::exchange`]).

use std::collections::HashMap;

use super::assignment::assignment;
use super::{Found, Solver};
use crate::core::pack::Take;

/// Cells of the assignment's matrix.
const CELLS_MAX: usize = 400_000;

impl Solver<'_> {
    pub(super) fn most(&mut self) -> Found {
        let order = self.order();
        if order.iter().any(|u| self.has_near(*u)) {
            return self.most_near(&order);
        }
        let racks: Vec<u32> = (0..self.inventory.racks.len() as u32).collect();
        let share = self.budget.0;
        self.most_of(&order, &racks, share)
    }

    /// As much as fits, given rows and zones; `share` bounds what improving it may cost.
    fn most_of(&mut self, order: &[usize], racks: &[u32], share: u64) -> Found {
        let alone = order.iter().all(|a| order.iter().all(|b| a == b || self.apart[*a][*b]));
        match alone && order.len() * racks.len() <= CELLS_MAX {
            true => self.assigned(order, racks),
            false => self.exchanged(order, racks, share),
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
    fn most_near(&mut self, order: &[usize]) -> Found {
        let mut places: Vec<(u32, u32)> = self.inventory.racks.iter().map(|r| (r.zone, r.row)).collect();
        places.sort_unstable();
        places.dedup();
        let roots = &self.ask.near_row;
        let by_row = (0..roots.len()).any(|g| roots[g] != g as u32);
        if !by_row {
            places.dedup_by_key(|(zone, _)| *zone);
        }
        let all_near = order.iter().all(|u| self.has_near(*u));
        let mut best: Found = vec![];
        let wanted: u64 = order.iter().map(|u| u64::from(self.units[*u].vms)).sum();
        let vms = |found: &Found| found.iter().flat_map(|f| &f.2).map(|t| u64::from(t.count)).sum::<u64>();
        let share = self.budget.0 / places.len().max(1) as u64;
        for (zone, row) in places {
            for u in order.iter().copied().filter(|u| self.has_near(*u)).collect::<Vec<_>>() {
                self.units[u].zone = Some(zone);
                self.units[u].row = by_row.then_some(row);
            }
            let here = |r: &u32| {
                let rack = &self.inventory.racks[*r as usize];
                !all_near || (rack.zone == zone && (!by_row || rack.row == row))
            };
            let racks: Vec<u32> = (0..self.inventory.racks.len() as u32).filter(here).collect();
            let found = self.most_of(order, &racks, share);
            if vms(&found) > vms(&best) {
                best = found;
            }
            if self.budget.0 == 0 || vms(&best) == wanted {
                break;
            }
        }
        best
    }

    pub(super) fn allowed(&self, unit: usize, rack: u32) -> bool {
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
}
