//! What a request means: groups with their VMs, who stands how to whom, where each may live. Everything that can be wrong
//! with a request is told here, before any rack is looked at.

use std::collections::BTreeMap;

use wire::rack_scheduler::{
    Divide, GROUPS_MAX, Mode, RELATIONS_MAX, RackAsk, Relation, RelationKind, SPECS_MAX, Select, Strength, VMS_MAX,
    VmSpec,
};

use super::amounts::{Amounts, Sums, add};
use super::inventory::{FitKey, Inventory};
use super::name::check_name;
use crate::{Kind, RackError, Result};

/// A kind of VM.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Class {
    /// What each wants.
    pub needs: Amounts,
    /// Labels that its host must carry.
    pub labels: BTreeMap<String, String>,
}

/// A group with what is to be placed of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// VMs to place, by class.
    pub counts: Vec<u32>,
    /// Number of its selection in [`Ask::selects`].
    pub select: usize,
    /// Where it lives already.
    pub home: Option<u32>,
    /// VMs that it has on hosts already: host and count.
    pub present: Vec<(usize, u32)>,
}

impl Group {
    /// VMs to place.
    pub fn vms(&self) -> u32 {
        self.counts.iter().sum()
    }
}

/// A preferred relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Which.
    pub kind: RelationKind,
    /// Between these.
    pub groups: Vec<u32>,
}

/// A request that makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Kinds of VM.
    pub classes: Vec<Class>,
    /// Groups.
    pub groups: Vec<Group>,
    /// Racks that may be used, by selection; `None` allows all.
    pub selects: Vec<Option<Vec<bool>>>,
    /// `apart[a][b]`: never the same rack.
    pub apart: Vec<Vec<bool>>,
    /// Groups with the same number share a rack.
    pub together: Vec<u32>,
    /// Groups with the same number share a row.
    pub near_row: Vec<u32>,
    /// Groups with the same number share a zone.
    pub near_zone: Vec<u32>,
    /// What is preferred.
    pub wishes: Vec<Wish>,
    /// VMs of one group on one host, at most.
    pub per_host: u32,
    /// The bound may give way.
    pub per_host_preferred: bool,
    /// As much as fits.
    pub best_effort: bool,
    /// Breaks ties.
    pub seed: u64,
}

fn invalid(message: impl Into<String>) -> RackError {
    RackError::new(Kind::Invalid, format!("{}; nothing was placed", message.into()))
}

impl Ask {
    /// Checks a request against the inventory that it means.
    ///
    /// # Errors
    /// `Invalid` for what can't be or contradicts itself, `NotFound` for an unknown rack, row or zone.
    pub fn check(inventory: &Inventory, ask: &RackAsk) -> Result<Self> {
        if let Some(tenant) = &ask.tenant {
            check_name("tenant", tenant)?;
        }
        let divided = divide(ask)?;
        let (classes, counted) = classes(&divided)?;
        let base = allowed(inventory, &ask.select)?;
        let (mut groups, mut selects) = (Vec::new(), vec![base.clone()]);
        for ((name, _, select), counts) in divided.iter().zip(counted) {
            check_name("group", name)?;
            let number = match select {
                Some(select) if **select != Select::default() => {
                    selects.push(both(&base, &allowed(inventory, select)?));
                    selects.len() - 1
                }
                _ => 0,
            };
            groups.push(Group {
                name: name.clone(),
                counts,
                select: number,
                home: None,
                present: vec![],
            });
        }
        if ask.inside.per_host_max == Some(0) {
            return Err(invalid("inside.per_host_max is 0: no VM could be anywhere"));
        }
        let per_host = ask.inside.per_host_max.unwrap_or(u64::from(u32::MAX));
        let mut checked = Self {
            classes,
            selects,
            apart: vec![vec![false; groups.len()]; groups.len()],
            together: (0..groups.len() as u32).collect(),
            near_row: (0..groups.len() as u32).collect(),
            near_zone: (0..groups.len() as u32).collect(),
            groups,
            wishes: vec![],
            per_host: u32::try_from(per_host).unwrap_or(u32::MAX),
            per_host_preferred: ask.inside.strength == Strength::Preferred,
            best_effort: ask.mode == Mode::BestEffort,
            seed: ask.seed,
        };
        checked.relate(ask.relations.as_deref())?;
        Ok(checked)
    }

    fn relate(&mut self, relations: Option<&[Relation]>) -> Result<()> {
        let default = [Relation {
            kind: RelationKind::Apart,
            groups: vec![],
            strength: Strength::Hard,
        }];
        let relations = relations.unwrap_or(&default);
        if relations.len() > RELATIONS_MAX {
            return Err(invalid(format!(
                "{} relations are more than {RELATIONS_MAX}, the most",
                relations.len()
            )));
        }
        for relation in relations {
            let members = self.members(&relation.groups)?;
            match (relation.kind, relation.strength) {
                (kind, Strength::Preferred) => self.wishes.push(Wish { kind, groups: members }),
                (kind, Strength::Hard) => self.must(kind, &members),
            }
        }
        match self.contradiction() {
            None => Ok(()),
            Some((a, b)) => Err(invalid(format!(
                "groups {} and {} are to be apart and together at once",
                self.groups[b].name, self.groups[a].name
            ))),
        }
    }

    fn must(&mut self, kind: RelationKind, members: &[u32]) {
        match kind {
            RelationKind::Apart => {
                for a in members {
                    for b in members.iter().filter(|b| *b != a) {
                        self.apart[*a as usize][*b as usize] = true;
                    }
                }
            }
            RelationKind::Together => join(&mut self.together, members),
            RelationKind::NearRow => join(&mut self.near_row, members),
            RelationKind::NearZone => join(&mut self.near_zone, members),
        }
    }

    /// Two groups that are to be apart and together at once.
    fn contradiction(&self) -> Option<(usize, usize)> {
        let both = |a: usize, b: usize| self.apart[a][b] && self.together[a] == self.together[b];
        (0..self.groups.len()).find_map(|a| (0..a).find(|b| both(a, *b)).map(|b| (a, b)))
    }

    /// This request with some of its wishes taken for hard relations; `None` when that contradicts itself.
    pub fn with_hard(&self, wishes: &[usize]) -> Option<Self> {
        let mut hard = self.clone();
        hard.wishes.clear();
        for (n, wish) in self.wishes.iter().enumerate() {
            match wishes.contains(&n) {
                true => hard.must(wish.kind, &wish.groups),
                false => hard.wishes.push(wish.clone()),
            }
        }
        hard.contradiction().is_none().then_some(hard)
    }

    fn members(&self, names: &[String]) -> Result<Vec<u32>> {
        if names.is_empty() {
            return Ok((0..self.groups.len() as u32).collect());
        }
        let find = |name: &String| {
            let found = self.groups.iter().position(|g| g.name == *name);
            found.map(|n| n as u32).ok_or_else(|| {
                let shown: String = name.chars().take(64).collect();
                invalid(format!("a relation names group '{shown}', which is not in the request"))
            })
        };
        let mut members: Vec<u32> = names.iter().map(find).collect::<Result<_>>()?;
        members.sort_unstable();
        members.dedup();
        Ok(members)
    }

    /// The key under which the fits of a class are known.
    pub fn fit_key(&self, class: usize, bounded: bool) -> FitKey {
        FitKey {
            needs: self.classes[class].needs,
            labels: self.classes[class].labels.clone(),
            per_host: if bounded { self.per_host } else { u32::MAX },
        }
    }
    /// The rack may hold the group.
    pub fn allows(&self, group: usize, rack: u32) -> bool {
        let group = &self.groups[group];
        group.home.is_none_or(|home| home == rack)
            && self.selects[group.select].as_ref().is_none_or(|a| a[rack as usize])
    }
    /// What a group wants in sum.
    pub fn demand(&self, group: usize) -> Sums {
        let mut sums = Sums::default();
        for (class, count) in self.classes.iter().zip(&self.groups[group].counts) {
            add(&mut sums, &class.needs.times(*count));
        }
        sums
    }
    /// What all groups want in sum.
    pub fn total(&self) -> Sums {
        let mut sums = Sums::default();
        (0..self.groups.len()).for_each(|g| add(&mut sums, &self.demand(g)));
        sums
    }
}

/// Groups by number: each set of groups that belongs to one gets the same number.
fn join(roots: &mut [u32], members: &[u32]) {
    let Some(first) = members.first().map(|m| roots[*m as usize]) else {
        return;
    };
    for member in members {
        let old = roots[*member as usize];
        roots.iter_mut().filter(|r| **r == old).for_each(|r| *r = first);
    }
}

fn both(a: &Option<Vec<bool>>, b: &Option<Vec<bool>>) -> Option<Vec<bool>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.iter().zip(b).map(|(a, b)| *a && *b).collect()),
        (one, None) | (None, one) => one.clone(),
    }
}

fn allowed(inventory: &Inventory, select: &Select) -> Result<Option<Vec<bool>>> {
    let unknown = |what: &str, name: &str| {
        let shown: String = name.chars().take(64).collect();
        RackError::new(
            Kind::NotFound,
            format!("select names {what} '{shown}', which is not in the inventory; nothing was placed"),
        )
        .hint("windlass rack inventory")
    };
    if *select == Select::default() {
        return Ok(None);
    }
    let find_all = |what: &str, names: &[String], find: &dyn Fn(&str) -> Option<u32>| -> Result<Vec<u32>> {
        names
            .iter()
            .map(|name| find(name).ok_or_else(|| unknown(what, name)))
            .collect()
    };
    let zones = find_all("zone", &select.zones, &|n| inventory.zones.find(n))?;
    let rows = find_all("row", &select.rows, &|n| inventory.rows.find(n))?;
    let racks = find_all("rack", &select.racks, &|n| inventory.rack(n))?;
    let within = |list: &[u32], number: u32| list.is_empty() || list.contains(&number);
    let allow = |(number, rack): (usize, &super::inventory::Rack)| {
        within(&zones, rack.zone) && within(&rows, rack.row) && within(&racks, number as u32)
    };
    Ok(Some(inventory.racks.iter().enumerate().map(allow).collect()))
}

type Divided<'a> = Vec<(String, Vec<(&'a VmSpec, u64)>, Option<&'a Select>)>;

/// The groups' names, what each has of every specification, and where each may live.
fn divide(ask: &RackAsk) -> Result<Divided<'_>> {
    let specs = if ask.groups.is_empty() {
        ask.vms.iter().collect::<Vec<_>>()
    } else {
        ask.groups.iter().flat_map(|g| &g.vms).collect()
    };
    let mut total = 0u64;
    for spec in &specs {
        if spec.count == 0 {
            return Err(invalid("a kind of VM with a count of 0"));
        }
        total = total.saturating_add(spec.count);
    }
    if total > VMS_MAX {
        return Err(invalid(format!(
            "{total} VMs are more than {VMS_MAX}, the most of one request"
        )));
    }
    if total == 0 {
        return Err(invalid("the request has no VMs").hint("windlass rack plan --help shows a request"));
    }
    if !ask.groups.is_empty() {
        return explicit(ask);
    }
    let count = match ask.divide {
        None => 1,
        Some(Divide::Groups(0) | Divide::GroupVms(0) | Divide::Replicas(0)) => {
            return Err(invalid("VMs can't be divided by 0"));
        }
        Some(Divide::Groups(n) | Divide::Replicas(n)) => n,
        Some(Divide::GroupVms(n)) => total.div_ceil(n),
    };
    if count > total {
        return Err(invalid(format!("{total} VMs can't be divided into {count} groups")));
    }
    if count > GROUPS_MAX as u64 {
        return Err(invalid(format!("{count} groups are more than {GROUPS_MAX}, the most")));
    }
    let mut groups: Divided<'_> = (0..count).map(|n| (format!("g{n}"), vec![], None)).collect();
    let mut next = 0;
    for spec in &ask.vms {
        // dealt like cards: of every kind, and in sum, groups differ by one at most
        for (n, group) in groups.iter_mut().enumerate() {
            let place = (n as u64 + count - next) % count;
            let share = spec.count / count + u64::from(place < spec.count % count);
            group.1.push((spec, share));
        }
        next = (next + spec.count) % count;
    }
    Ok(groups)
}

fn explicit(ask: &RackAsk) -> Result<Divided<'_>> {
    if !ask.vms.is_empty() || ask.divide.is_some() {
        return Err(invalid("a request has either groups of its own, or vms and divide"));
    }
    if ask.groups.len() > GROUPS_MAX {
        return Err(invalid(format!(
            "{} groups are more than {GROUPS_MAX}, the most",
            ask.groups.len()
        )));
    }
    let mut names = std::collections::BTreeSet::new();
    for group in &ask.groups {
        if group.vms.is_empty() {
            return Err(invalid(format!("group {} has no VMs", group.name)));
        }
        if !names.insert(&group.name) {
            return Err(invalid(format!("group {} stands twice", group.name)));
        }
    }

    Ok(ask
        .groups
        .iter()
        .map(|g| {
            let vms = g.vms.iter().map(|spec| (spec, spec.count)).collect();
            (g.name.clone(), vms, Some(&g.select))
        })
        .collect())
}

/// The different kinds of VM, and what each group has of each.
fn classes(divided: &Divided<'_>) -> Result<(Vec<Class>, Vec<Vec<u32>>)> {
    let mut classes: Vec<Class> = Vec::new();
    let mut counted: Vec<Vec<u32>> = vec![Vec::new(); divided.len()];
    for (group, (name, vms, _)) in divided.iter().enumerate() {
        for (spec, share) in vms {
            let class = Class {
                needs: Amounts::of_vm(&format!("a VM of group {name}"), spec)?,
                labels: spec.labels.clone(),
            };
            let number = match classes.iter().position(|c| *c == class) {
                Some(number) => number,
                None => {
                    classes.push(class);
                    classes.len() - 1
                }
            };
            if classes.len() > SPECS_MAX {
                return Err(invalid(format!("more than {SPECS_MAX} kinds of VM")));
            }
            counted.iter_mut().for_each(|c| c.resize(classes.len(), 0));
            counted[group][number] += u32::try_from(*share).unwrap_or(u32::MAX);
        }
    }
    Ok((classes, counted))
}
