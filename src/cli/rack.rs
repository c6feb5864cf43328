//! `windlass rack ...`: build a message, send it, print the answer.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use wire::rack_scheduler::{
    Divide, HostState, Inside, Mode, RackAsk, RackEvacuate, RackExplain, RackGrow, RackInventory, RackList, RackLoad,
    RackMark, RackPlace, RackPlan, RackQuota, RackRelease, RackShow, RackShrink, RackWhatif, Resources, RoomReport,
    Strength, VmSpec,
};
use wire::{Code, ErrorBody};

use self::args::{AskArgs, RackVerb, State, Why};
use super::Context;
use crate::client::Client;

pub mod args;
mod map;
mod show;

/// Largest file that is read, in bytes: what the bus carries.
pub(super) const FILE_BYTES_MAX: u64 = bus::PAYLOAD_BYTES_MAX as u64;

/// Hosts that one message loads; larger inventories go in parts of whole racks.
const LOAD_HOSTS_MAX: usize = 2_000;

/// Largest inventory file, in bytes.
const INVENTORY_BYTES_MAX: u64 = 1 << 30;

/// Runs one verb.
///
/// # Errors
/// As the concern answers; `invalid` for a file that can't be understood.
pub async fn run(context: &Context, verb: &RackVerb) -> Result<ExitCode, ErrorBody> {
    let client = context.connect().await?;
    let result = match verb {
        RackVerb::Place { .. } | RackVerb::Plan { .. } | RackVerb::Explain { .. } | RackVerb::Whatif { .. } => {
            wanted(context, &client, verb).await
        }
        RackVerb::Inventory { .. }
        | RackVerb::Load { .. }
        | RackVerb::Mark { .. }
        | RackVerb::Quota { .. }
        | RackVerb::Map { .. } => stock(context, &client, verb).await,
        _ => standing(context, &client, verb).await,
    };
    client.close().await;
    result
}

/// What someone wants.
async fn wanted(context: &Context, client: &Client, verb: &RackVerb) -> Result<ExitCode, ErrorBody> {
    match verb {
        RackVerb::Place { ask, request_id } => {
            let request = RackPlace {
                ask: asked(context, ask)?,
            };
            let reply = client.call_once(&request, request_id.clone()).await?;
            context.answer(&reply, show::placement)
        }
        RackVerb::Plan { ask } => {
            let request = RackPlan {
                ask: asked(context, ask)?,
            };
            context.answer(&client.call(&request).await?, show::plan)
        }
        RackVerb::Explain { id, file } => {
            let ask = match file {
                Some(file) => Some(read(context, file, FILE_BYTES_MAX)?),
                None => None,
            };
            let request = RackExplain { id: id.clone(), ask };
            context.answer(&client.call(&request).await?, show::explanation)
        }
        RackVerb::Whatif {
            vcpus,
            memory_mib,
            disk_gib,
            gpus,
            group_vms,
            per_host_max,
        } => {
            let request = RackWhatif {
                vm: VmSpec {
                    count: *group_vms,
                    vcpus: *vcpus,
                    memory_mib: *memory_mib,
                    disk_gib: *disk_gib,
                    gpus: *gpus,
                    ..VmSpec::default()
                },
                inside: Inside {
                    per_host_max: *per_host_max,
                    strength: Strength::Hard,
                },
                ..RackWhatif::default()
            };
            let reply = client.call(&request).await?;
            context.answer(&reply, |r| show::whatif(r, *group_vms))
        }
        _ => unreachable!("dispatched by `run`"),
    }
}

/// What stands already.
async fn standing(context: &Context, client: &Client, verb: &RackVerb) -> Result<ExitCode, ErrorBody> {
    match verb {
        RackVerb::Ls { tenant } => {
            let mut request = RackList {
                tenant: tenant.clone(),
                after: None,
            };
            let mut listing = client.call(&request).await?;
            while let Some(after) = listing.more_after.take() {
                request.after = Some(after);
                let more = client.call(&request).await?;
                listing.placements.extend(more.placements);
                listing.more_after = more.more_after;
            }
            context.answer(&listing, show::placements)
        }
        RackVerb::Show { id } => context.answer(&client.call(&RackShow { id: id.clone() }).await?, show::placement),
        RackVerb::Release { id } => {
            context.answer(&client.call(&RackRelease { id: id.clone() }).await?, show::released)
        }
        RackVerb::Grow { request_id, .. } => {
            let reply = client.call_once(&grown(verb), request_id.clone()).await?;
            context.answer(&reply, show::placement)
        }
        RackVerb::Shrink { id, count, vms } => {
            let request = RackShrink {
                id: id.clone(),
                count: count.unwrap_or(0),
                vms: vms.clone(),
            };
            context.answer(&client.call(&request).await?, show::placement)
        }
        RackVerb::Evacuate {
            host,
            rack,
            why,
            move_groups,
        } => {
            let request = RackEvacuate {
                host: host.clone(),
                rack: rack.clone(),
                state: match why {
                    Why::Draining => HostState::Draining,
                    Why::Lost => HostState::Lost,
                },
                move_groups: *move_groups,
            };
            context.answer(&client.call(&request).await?, show::evacuated)
        }
        RackVerb::Topology { id, format } => {
            let placement = client.call(&RackShow { id: id.clone() }).await?;
            context.answer(&show::domains(&placement), |_| show::topology(&placement, *format))
        }
        _ => unreachable!("dispatched by `run`"),
    }
}

/// What there is.
async fn stock(context: &Context, client: &Client, verb: &RackVerb) -> Result<ExitCode, ErrorBody> {
    match verb {
        RackVerb::Inventory { rack } => {
            let report = inventory(client, rack.clone(), false).await?;
            context.answer(&report, show::inventory)
        }
        RackVerb::Load { file, replace } => load(context, client, file, *replace).await,
        RackVerb::Mark { host, state } => {
            let request = RackMark {
                host: host.clone(),
                state: match state {
                    State::Up => HostState::Up,
                    State::Cordoned => HostState::Cordoned,
                    State::Draining => HostState::Draining,
                    State::Lost => HostState::Lost,
                },
            };
            let reply = client.call(&request).await?;
            context.answer(&reply, |row| show::hosts(std::slice::from_ref(row)))
        }
        RackVerb::Quota {
            tenant,
            vcpus,
            memory_mib,
            disk_gib,
            gpus,
            nics,
        } => {
            let given = [vcpus, memory_mib, disk_gib, gpus, nics];
            let of = |given: &Option<u64>| given.unwrap_or(0);
            let quota = Resources {
                vcpus: of(vcpus),
                memory_mib: of(memory_mib),
                disk_gib: of(disk_gib),
                gpus: of(gpus),
                nics: of(nics),
            };
            let request = RackQuota {
                tenant: tenant.clone(),
                quota: given.iter().any(|g| g.is_some()).then_some(quota),
            };
            context.answer(&client.call(&request).await?, show::quota)
        }
        RackVerb::Map { placement, svg } => {
            let report = inventory(client, None, true).await?;
            let id = match placement {
                Some(id) => Some(client.call(&RackShow { id: id.clone() }).await?.id),
                None => None,
            };
            match svg {
                true => context.output.text(&map::svg(&report, id.as_deref()))?,
                false => {
                    let colour = context.output.colour;
                    context.answer(&report, |r| map::text(r, id.as_deref(), colour))?;
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        _ => unreachable!("dispatched by `run`"),
    }
}

/// The whole inventory, page after page.
async fn inventory(client: &Client, rack: Option<String>, hosts: bool) -> Result<RoomReport, ErrorBody> {
    let mut request = RackInventory {
        rack,
        after: None,
        hosts,
    };
    let mut report = client.call(&request).await?;
    while let Some(after) = report.more_after.take() {
        request.after = Some(after);
        let more = client.call(&request).await?;
        report.racks.extend(more.racks);
        report.more_after = more.more_after;
    }
    Ok(report)
}

/// Sends an inventory in parts of whole racks. A part that was loaded stays when a later one is refused, and the error says so.
async fn load(context: &Context, client: &Client, file: &Path, replace: bool) -> Result<ExitCode, ErrorBody> {
    let inventory: wire::rack_scheduler::InventoryArg = read(context, file, INVENTORY_BYTES_MAX)?;
    let mut seen = std::collections::HashMap::new();
    for host in &inventory.hosts {
        if let Some(rack) = seen.insert(&host.id, &host.rack) {
            let message = format!(
                "host {} stands twice, in rack {rack} and in rack {}; nothing was loaded",
                host.id, host.rack
            );
            return Err(ErrorBody::new(Code::Invalid, message));
        }
    }
    let mut by_rack: std::collections::BTreeMap<&str, Vec<_>> = std::collections::BTreeMap::new();
    for host in &inventory.hosts {
        by_rack.entry(&host.rack).or_default().push(host.clone());
    }
    let mut total = wire::rack_scheduler::Loaded { racks: 0, hosts: 0 };
    let mut part = Vec::new();
    let mut racks = by_rack.into_values().peekable();
    loop {
        if let Some(hosts) = racks.next() {
            part.extend(hosts);
        }
        if racks
            .peek()
            .is_some_and(|next| part.len() + next.len() <= LOAD_HOSTS_MAX)
        {
            continue;
        }
        let request = RackLoad {
            inventory: wire::rack_scheduler::InventoryArg {
                hosts: std::mem::take(&mut part),
                ..inventory.clone()
            },
            replace,
        };
        let loaded = client.call(&request).await.map_err(|mut error| {
            if total.racks > 0 {
                error.message = format!("{} ({} racks were loaded before it)", error.message, total.racks);
            }
            error
        })?;
        total.racks += loaded.racks;
        total.hosts += loaded.hosts;
        if racks.peek().is_none() {
            return context.answer(&total, show::loaded);
        }
    }
}

fn grown(verb: &RackVerb) -> RackGrow {
    let RackVerb::Grow {
        id,
        vms,
        vcpus,
        memory_mib,
        disk_gib,
        gpus,
        nics,
        groups,
        ..
    } = verb
    else {
        unreachable!("dispatched by `standing`")
    };
    RackGrow {
        id: id.clone(),
        vms: vec![VmSpec {
            count: *vms,
            vcpus: *vcpus,
            memory_mib: *memory_mib,
            disk_gib: *disk_gib,
            gpus: *gpus,
            nics: *nics,
            ..VmSpec::default()
        }],
        groups: groups.clone(),
    }
}

fn asked(context: &Context, args: &AskArgs) -> Result<RackAsk, ErrorBody> {
    if let Some(file) = &args.file {
        return read(context, file, FILE_BYTES_MAX);
    }
    Ok(RackAsk {
        tenant: args.tenant.clone(),
        vms: vec![VmSpec {
            count: args.vms.unwrap_or(0),
            vcpus: args.vcpus,
            memory_mib: args.memory_mib,
            disk_gib: args.disk_gib,
            gpus: args.gpus,
            nics: args.nics,
            ..VmSpec::default()
        }],
        divide: match (args.groups, args.group_vms, args.replicas) {
            (Some(n), ..) => Some(Divide::Groups(n)),
            (_, Some(n), _) => Some(Divide::GroupVms(n)),
            (.., Some(n)) => Some(Divide::Replicas(n)),
            _ => None,
        },
        inside: Inside {
            per_host_max: args.per_host_max,
            strength: Strength::Hard,
        },
        mode: if args.best_effort {
            Mode::BestEffort
        } else {
            Mode::AllOrNothing
        },
        ..RackAsk::default()
    })
}

/// Reads TOML or JSON. A key that means nothing is an error: it would be a wish that nobody heeds.
pub(super) fn read<T: DeserializeOwned + Serialize>(
    context: &Context,
    file: &Path,
    bytes_max: u64,
) -> Result<T, ErrorBody> {
    let (name, text) = text_of(context, file, bytes_max)?;
    let wrong = |why: String| {
        ErrorBody::new(Code::Invalid, format!("{name}: {why}; nothing was sent")).hint("--help shows a request")
    };
    let given: Value = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?
    } else {
        toml::from_str(&text).map_err(|e| wrong(e.to_string().trim().to_owned()))?
    };
    let read: T = serde_json::from_value(given.clone()).map_err(|e| wrong(e.to_string()))?;
    let known = serde_json::to_value(&read).map_err(|e| wrong(e.to_string()))?;
    match unknown(&given, &known) {
        None => Ok(read),
        Some(key) => Err(wrong(format!("nothing is called '{key}'"))),
    }
}

/// A file's name for people, and its text.
pub(super) fn text_of(context: &Context, file: &Path, bytes_max: u64) -> Result<(String, String), ErrorBody> {
    let from_stdin = file == Path::new("-");
    let name = if from_stdin {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    };
    let failed = |e: std::io::Error| {
        let code = match e.kind() {
            std::io::ErrorKind::NotFound => Code::NotFound,
            std::io::ErrorKind::PermissionDenied => Code::Denied,
            _ => Code::Invalid,
        };
        ErrorBody::new(code, format!("{name} can't be read: {e}; nothing was sent"))
    };
    let mut text = String::new();
    let taken = match from_stdin {
        true => std::io::stdin().lock().take(bytes_max + 1).read_to_string(&mut text),
        false => std::fs::File::open(context.working_dir.join(file))
            .and_then(|f| f.take(bytes_max + 1).read_to_string(&mut text)),
    };
    if taken.map_err(failed)? as u64 > bytes_max {
        let message = format!("{name} has more than {bytes_max} bytes; nothing was sent");
        return Err(ErrorBody::new(Code::Invalid, message));
    }
    Ok((name, text))
}

/// The first key that was given and isn't known. What is empty says nothing either way.
fn unknown(given: &Value, known: &Value) -> Option<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given.iter().find_map(|(key, value)| {
            let empty = value.is_null()
                || value.as_object().is_some_and(serde_json::Map::is_empty)
                || value.as_array().is_some_and(Vec::is_empty);
            match known.get(key) {
                None if empty => None,
                None => Some(key.clone()),
                Some(known) => unknown(value, known).map(|below| format!("{key}.{below}")),
            }
        }),
        (Value::Array(given), Value::Array(known)) => given.iter().zip(known).find_map(|(g, k)| unknown(g, k)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_means_nothing_is_found() {
        let known = serde_json::to_value(RackAsk {
            vms: vec![VmSpec::default()],
            ..RackAsk::default()
        })
        .unwrap();
        let given = |text: &str| unknown(&toml::from_str(text).unwrap(), &known);
        assert_eq!(given("seed = 1\n[[vms]]\ncount = 1\nlabels = {}\n"), None);
        assert_eq!(
            given("[[vms]]\ncount = 1\nmemory_mb = 1\n"),
            Some("vms.memory_mb".into())
        );
        assert_eq!(given("sed = 1\n"), Some("sed".into()));
    }
}
