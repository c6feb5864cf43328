//! All units apart: each rack is used by one at most, so homes are a matching of units to racks, found by augmenting paths
//! (Kuhn 1955). If there is one, it is found.

use std::collections::HashMap;

use super::{Found, Solver};

impl Solver<'_> {
    pub(super) fn matched(&mut self, order: &[usize]) -> Option<Found> {
        let mut holder: HashMap<u32, usize> = HashMap::new();
        for unit in order {
            let mut seen = vec![false; self.inventory.racks.len()];
            if !self.free_rack(*unit, &mut holder) && !self.augment(*unit, &mut holder, &mut seen) {
                return None;
            }
        }
        let mut found: Found = Vec::with_capacity(holder.len());
        for (rack, unit) in holder {
            let takes = self.packed.get(&(self.units[unit].signature, rack)).cloned().flatten();
            found.push((
                unit,
                rack,
                takes.expect("a rack is held only by a unit that packs into it"),
            ));
        }
        found.sort_by_key(|(unit, ..)| *unit);
        Some(found)
    }

    /// The best rack that nobody holds.
    fn free_rack(&mut self, unit: usize, holder: &mut HashMap<u32, usize>) -> bool {
        let signature = self.units[unit].signature;
        let mut n = 0;
        while let Some(rack) = self.candidates[signature].get(n) {
            n += 1;
            if !holder.contains_key(&rack) && self.may(unit, rack) && self.packs_alone(unit, rack) {
                holder.insert(rack, unit);
                return true;
            }
            if self.budget.0 == 0 {
                return false;
            }
        }
        false
    }

    fn augment(&mut self, unit: usize, holder: &mut HashMap<u32, usize>, seen: &mut [bool]) -> bool {
        let signature = self.units[unit].signature;
        let mut n = 0;
        while let Some(rack) = self.candidates[signature].get(n) {
            n += 1;
            if seen[rack as usize] || !self.may(unit, rack) || !self.packs_alone(unit, rack) {
                continue;
            }
            if !self.budget.spend(1) {
                return false;
            }
            seen[rack as usize] = true;
            let free = match holder.get(&rack).copied() {
                None => true,
                Some(other) => self.augment(other, holder, seen),
            };
            if free {
                holder.insert(rack, unit);
                return true;
            }
        }
        false
    }
}
