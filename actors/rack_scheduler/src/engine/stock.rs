//! What there is: `load`, `mark`, `inventory`, `quota`, `report`.

use std::collections::BTreeMap;

use futures::StreamExt;
use wire::rack_scheduler::{
    Drift, DriftKind, HostRow, HostState, Loaded, RackInventory, RackLoad, RackMark, RackQuota, RackReport, RackRow,
    ReportReply, Resources, RoomReport, TenantQuota,
};

use super::Scheduler;
use super::commit::encoded;
use super::view::{key, read};
use crate::core::amounts::{Amounts, Sums, add, sums_fit, sums_to_wire};
use crate::core::change::vm_name;
use crate::core::ledger::{RACK_VERSION, RackChange, RackRecord, TenantRecord, VERSION};
use crate::core::name::check_name;
use crate::core::topology;
use crate::{Kind, RackError, Result};

/// Hosts in one answer, so that it stays below a message's size.
const HOSTS_SHOWN_MAX: usize = 1_000;
/// Racks in one answer without hosts.
const RACKS_SHOWN_MAX: usize = 2_000;
/// Racks that are written at once.
const LOADED_AT_ONCE: usize = 32;
/// VMs of one report.
const REPORT_VMS_MAX: usize = 10_000;

impl Scheduler {
    /// Writes racks; what is booked in them stays.
    ///
    /// # Errors
    /// As [`topology::racks`]; `Conflict` for a host that is in another rack, or with `replace` has VMs and would go.
    pub async fn load(&self, request: &RackLoad) -> Result<Loaded> {
        let racks = topology::racks(&request.inventory)?;
        self.refresh().await?;
        for (id, record) in &racks {
            for host in &record.hosts {
                if let Some(other) = self.view().rack_of(&host.id).filter(|other| other != id) {
                    return Err(RackError::new(
                        Kind::Conflict,
                        format!("host {} is in rack {other} already; nothing was loaded", host.id),
                    )
                    .hint("evacuate it and load its old rack without it, with --replace"));
                }
            }
        }
        let hosts = racks.values().map(|r| r.hosts.len() as u64).sum();
        let loaded = Loaded {
            racks: racks.len() as u64,
            hosts,
        };
        let each = racks
            .into_iter()
            .map(|(id, record)| self.load_rack(id, record, request.replace));
        let mut each = futures::stream::iter(each).buffered(LOADED_AT_ONCE);
        while let Some(outcome) = each.next().await {
            outcome?;
        }
        Ok(loaded)
    }

    async fn load_rack(&self, id: String, fresh: RackRecord, replace: bool) -> Result<()> {
        let record = RackRecord {
            version: RACK_VERSION,
            ..fresh
        };
        match self.state.create(&key("racks", &id)?, encoded(&record)?).await {
            Ok(revision) => {
                self.view().apply(&id, revision, record);
                return Ok(());
            }
            Err(error) if error.kind == state::Kind::Conflict => {}
            Err(error) => return Err(error.into()),
        }
        let change = RackChange::Load { fresh: record, replace };
        self.change_rack(&id, change).await.map(|_| ())
    }

    pub(super) fn known_rack_of(&self, host: &str) -> Result<String> {
        check_name("host", host)?;
        self.view().rack_of(host).ok_or_else(|| {
            RackError::new(
                Kind::NotFound,
                format!("host {host} is not in the inventory; nothing was changed"),
            )
            .hint("windlass rack inventory --rack RACK lists a rack's hosts")
        })
    }

    pub(super) async fn set_states(&self, rack: &str, hosts: &[String], state: HostState) -> Result<()> {
        let change = RackChange::Mark {
            hosts: hosts.to_vec(),
            state,
        };
        self.change_rack(rack, change).await.map(|_| ())
    }

    /// Sets a host's state.
    ///
    /// # Errors
    /// `NotFound` for an unknown host.
    pub async fn mark(&self, request: &RackMark) -> Result<HostRow> {
        self.refresh().await?;
        let rack = self.known_rack_of(&request.host)?;
        self.set_states(&rack, std::slice::from_ref(&request.host), request.state)
            .await?;
        let (_, record) = self.read_rack(&rack).await?;
        let rows = self.host_rows(&record, true).await?;
        rows.into_iter()
            .find(|row| row.id == request.host)
            .ok_or_else(|| RackError::new(Kind::NotFound, format!("host {} has gone meanwhile", request.host)))
    }

    /// Racks, and with them hosts where that was asked for.
    ///
    /// # Errors
    /// `NotFound` for an unknown rack.
    pub async fn inventory(&self, request: &RackInventory) -> Result<RoomReport> {
        self.refresh().await?;
        if let Some(rack) = &request.rack {
            check_name("rack", rack)?;
            self.read_rack(rack).await?;
        }
        let (records, racks_total, hosts_total) = {
            let view = self.view();
            let all = view.racks();
            let wanted = |id: &&String| {
                request.rack.as_ref().is_none_or(|rack| rack == *id)
                    && request.after.as_ref().is_none_or(|after| *id > after)
            };
            let (mut hosts, mut records) = (0, Vec::new());
            for (id, (_, record)) in all.iter().filter(|(id, _)| wanted(id)) {
                hosts += record.hosts.len();
                let full = request.hosts && hosts > HOSTS_SHOWN_MAX && !records.is_empty();
                if full || records.len() >= RACKS_SHOWN_MAX {
                    break;
                }
                records.push((id.clone(), record.clone()));
            }
            let hosts_total: usize = all.values().map(|(_, r)| r.hosts.len()).sum();
            (records, all.len() as u64, hosts_total as u64)
        };
        let last = records.last().map(|(id, _)| id.clone());
        let more_after = last.filter(|last| {
            request.rack.is_none() && self.view().racks().range::<String, _>(last.clone()..).nth(1).is_some()
        });
        let mut racks = Vec::with_capacity(records.len());
        for (id, record) in records {
            racks.push(
                self.rack_row(id, &record, request.hosts || request.rack.is_some())
                    .await?,
            );
        }
        Ok(RoomReport {
            racks,
            racks_total,
            hosts_total,
            more_after,
        })
    }

    async fn rack_row(&self, id: String, record: &RackRecord, with_hosts: bool) -> Result<RackRow> {
        let booked = record.booked();
        let (mut sold, mut taken) = (Sums::default(), Sums::default());
        let up = |h: &&crate::core::ledger::HostRecord| h.now() == HostState::Up;
        for host in record.hosts.iter().filter(up) {
            add(&mut sold, &host.sold.times(1));
            add(&mut taken, booked.get(host.id.as_str()).unwrap_or(&Sums::default()));
        }
        Ok(RackRow {
            id,
            row: record.row.clone(),
            zone: record.zone.clone(),
            region: record.region.clone(),
            hosts_up: record.hosts.iter().filter(up).count() as u64,
            hosts_total: record.hosts.len() as u64,
            sold: sums_to_wire(&sold),
            booked: sums_to_wire(&taken),
            hosts: match with_hosts {
                true => self.host_rows(record, false).await?,
                false => vec![],
            },
        })
    }

    async fn host_rows(&self, record: &RackRecord, all: bool) -> Result<Vec<HostRow>> {
        let booked = record.booked();
        let mut names = resident_names(record)?;
        let mut rows = Vec::with_capacity(record.hosts.len());
        for host in &record.hosts {
            let mut vms: BTreeMap<String, u64> = BTreeMap::new();
            for booking in &record.bookings {
                for taken in booking.taken.iter().filter(|t| t.host == host.id) {
                    let group = self.group_name(&mut names, &booking.placement, taken.group).await?;
                    *vms.entry(format!("{}/{group}", booking.placement)).or_default() += taken.vms.len() as u64;
                }
            }
            let taken = booked.get(host.id.as_str()).copied().unwrap_or_default();
            let mut drift = match self.state.get(&key("reports", &host.id)?).await? {
                None => vec![],
                Some(entry) => self.drift(&read::<RackReport>(&entry)?, record, &mut names).await?,
            };
            debug_assert!(all || !host.id.is_empty());
            if !sums_fit(&taken, &host.sold.times(1)) {
                drift.push(Drift {
                    kind: DriftKind::Short,
                    placement: String::new(),
                    vm: String::new(),
                    booked: sums_to_wire(&taken),
                    actual: host.sold.to_wire(),
                });
            }
            rows.push(HostRow {
                id: host.id.clone(),
                state: host.now(),
                sold: host.sold.to_wire(),
                booked: sums_to_wire(&taken),
                vms,
                drift,
            });
        }
        Ok(rows)
    }

    /// A group's name, from its placement's record; read once for each placement.
    async fn group_name(
        &self,
        names: &mut BTreeMap<String, Vec<String>>,
        placement: &str,
        group: u32,
    ) -> Result<String> {
        if !names.contains_key(placement) {
            let record = self.known(placement).await?;
            let groups = record.map(|r| r.groups.iter().map(|g| g.name.clone()).collect());
            names.insert(placement.to_owned(), groups.unwrap_or_default());
        }
        let known = names
            .get(placement)
            .and_then(|names| names.get(group as usize))
            .cloned();
        // not decided yet: its record isn't there
        Ok(known.unwrap_or_else(|| format!("g{group}")))
    }

    /// Sets or shows a tenant's quota.
    ///
    /// # Errors
    /// `Invalid` for a name or an amount that won't do.
    pub async fn quota(&self, request: &RackQuota) -> Result<TenantQuota> {
        check_name("tenant", &request.tenant)?;
        let at = key("tenants", &request.tenant)?;
        if let Some(quota) = &request.quota {
            let quota = [quota.vcpus, quota.memory_mib, quota.disk_gib, quota.gpus, quota.nics];
            if self.state.get(&at).await?.is_none() {
                let fresh = self.booked_of(&request.tenant, quota).await?;
                match self.state.create(&at, encoded(&fresh)?).await {
                    Err(error) if error.kind != state::Kind::Conflict => return Err(error.into()),
                    _ => {}
                }
            }
            self.change_tenant(&request.tenant, |record| {
                record.quota = quota;
                Ok(())
            })
            .await?;
        }
        let record: TenantRecord = match self.state.get(&at).await? {
            Some(entry) => read(&entry)?,
            None => self.booked_of(&request.tenant, Sums::default()).await?,
        };
        Ok(TenantQuota {
            tenant: request.tenant.clone(),
            quota: sums_to_wire(&record.quota),
            booked: sums_to_wire(&record.booked()),
        })
    }

    /// A tenant's record made from its placements: what was booked before there was a quota counts too.
    async fn booked_of(&self, tenant: &str, quota: Sums) -> Result<TenantRecord> {
        let mut record = TenantRecord {
            version: VERSION,
            quota,
            shares: vec![],
        };
        for placement in self.placements().await? {
            if placement.ask.tenant.as_deref() == Some(tenant) {
                record.set(&placement.id, &placement.changes, placement.sums(), placement.revision);
            }
        }
        Ok(record)
    }

    /// Keeps what a host says that it has, and answers what differs from what is booked.
    ///
    /// # Errors
    /// `NotFound` for an unknown host; `Invalid` for a report without bounds.
    pub async fn report(&self, request: &RackReport) -> Result<ReportReply> {
        self.refresh().await?;
        let rack = self.known_rack_of(&request.host)?;
        if request.vms.len() > REPORT_VMS_MAX {
            return Err(RackError::new(
                Kind::Invalid,
                format!(
                    "a report of {} VMs; at most {REPORT_VMS_MAX} are taken; nothing was changed",
                    request.vms.len()
                ),
            ));
        }
        self.state
            .put(&key("reports", &request.host)?, encoded(request)?)
            .await?;
        let (_, record) = self.read_rack(&rack).await?;
        let drift = self.drift(request, &record, &mut resident_names(&record)?).await?;
        Ok(ReportReply { drift })
    }

    async fn drift(
        &self,
        report: &RackReport,
        record: &RackRecord,
        names: &mut BTreeMap<String, Vec<String>>,
    ) -> Result<Vec<Drift>> {
        let mut booked: BTreeMap<(String, String), Amounts> = BTreeMap::new();
        for booking in &record.bookings {
            for taken in booking.taken.iter().filter(|t| t.host == report.host) {
                let group = self.group_name(names, &booking.placement, taken.group).await?;
                for vm in &taken.vms {
                    let group = crate::core::ledger::GroupRecord::named(&group);
                    booked.insert((booking.placement.clone(), vm_name(&group, *vm)), taken.needs);
                }
            }
        }
        let mut drift = Vec::new();
        let mut one = |kind, (placement, vm): &(String, String), booked: Resources, actual: Resources| {
            drift.push(Drift {
                kind,
                placement: placement.clone(),
                vm: vm.clone(),
                booked,
                actual,
            });
        };
        let mut seen = std::collections::BTreeSet::new();
        for vm in &report.vms {
            let name = (vm.placement.clone(), vm.vm.clone());
            match booked.get(&name) {
                None => one(DriftKind::Unbooked, &name, Resources::default(), vm.has),
                Some(needs) if needs.to_wire() != vm.has => one(DriftKind::Differs, &name, needs.to_wire(), vm.has),
                Some(_) => {}
            }
            seen.insert(name);
        }
        for (name, needs) in booked.iter().filter(|(name, _)| !seen.contains(*name)) {
            one(DriftKind::Missing, name, needs.to_wire(), Resources::default());
        }
        Ok(drift)
    }
}

/// The groups' names of placements that the rack's own record keeps.
fn resident_names(record: &RackRecord) -> Result<BTreeMap<String, Vec<String>>> {
    let mut names = BTreeMap::new();
    for resident in &record.residents {
        let groups = resident.read()?.groups;
        names.insert(resident.placement.clone(), groups.into_iter().map(|g| g.name).collect());
    }
    Ok(names)
}
