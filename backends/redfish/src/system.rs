//! One system as its controller tells of it, and what vendors write otherwise: figures as text or null, summaries that contradict
//! their parts, collections that aren't there, links with or without a slash at the end.

use json_http::{Answer, Client, HttpError, Kind};
use serde_json::Value;
use wire::metal_broker::{Health, Machine};

use super::Controller;

/// Most members of one collection that are looked at: processors, modules, drives, interfaces.
const MEMBERS_MAX: usize = 128;
/// Most pages of one collection.
const PAGES_MAX: usize = 16;
/// How much less a summary of memory may say than its modules, in percent, before the modules are believed.
const MEMORY_DOUBT_PERCENT: u64 = 5;

type Read<T> = Result<T, HttpError>;

/// A figure: a number, also one with a fraction, or one in quotes; `None` for anything else, and for what is negative.
fn figure(value: &Value) -> Option<u64> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    // beyond this a float is no count
    (number.is_finite() && (0.0..=1e15).contains(&number)).then(|| number.round() as u64)
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str().map(str::trim).filter(|t| !t.is_empty())
}

fn link(value: &Value) -> Option<String> {
    Some(text(value, "@odata.id")?.to_owned())
}

/// Members of a collection, page after page. One that isn't there has none.
async fn members(client: &Client, of: Option<&Value>, most: usize) -> Read<Vec<String>> {
    let (mut links, mut next) = (Vec::new(), of.and_then(link));
    for _ in 0..PAGES_MAX {
        let Some(page) = next else { break };
        let body = match client.get(&page).await {
            Ok(Answer { body, .. }) => body,
            Err(error) if error.kind == Kind::NotFound => break,
            Err(error) => return Err(error),
        };
        let found = body.get("Members").and_then(Value::as_array);
        links.extend(found.into_iter().flatten().filter_map(link));
        if links.len() >= most {
            links.truncate(most);
            break;
        }
        next = text(&body, "Members@odata.nextLink")
            .or_else(|| text(&body, "@odata.nextLink"))
            .map(str::to_owned);
    }
    Ok(links)
}

/// Members of a collection, each read. One that has gone between is left out; a collection that its controller fails at is told,
/// and has none.
async fn each(client: &Client, of: Option<&Value>, troubles: &mut Vec<String>) -> Read<Vec<Value>> {
    let mut bodies = Vec::new();
    let links = match members(client, of, MEMBERS_MAX).await {
        Err(error) if error.kind == Kind::Broken => {
            troubles.push(error.message);
            Vec::new()
        }
        links => links?,
    };
    for link in links {
        match client.get(&link).await {
            Ok(answer) => bodies.push(answer.body),
            Err(error) if error.kind == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bodies)
}

/// Links to a controller's systems.
pub(super) async fn systems(client: &Client, most: usize) -> Read<Vec<String>> {
    let root = client.get("/redfish/v1/").await?.body;
    let Some(systems) = root.get("Systems").filter(|s| s.is_object()) else {
        return Err(HttpError {
            kind: Kind::Garbled,
            message: format!("{}: its service root tells of no systems", client.base()),
        });
    };
    members(client, Some(systems), most).await
}

fn is_there(part: &Value) -> bool {
    let state = part.pointer("/Status/State").and_then(Value::as_str);
    !matches!(state, Some("Absent" | "Disabled"))
}

/// One system with all that is asked for of it; `None` for one that isn't there.
pub(super) async fn read(
    client: &Client,
    controller: &Controller,
    at: &str,
    alone: bool,
) -> Read<Option<(Machine, Vec<String>)>> {
    let system = client.get(at).await?.body;
    if !system.is_object() {
        return Err(HttpError {
            kind: Kind::Garbled,
            message: format!("{}: {at} is no system", client.base()),
        });
    }
    if system.pointer("/Status/State").and_then(Value::as_str) == Some("Absent") {
        return Ok(None);
    }
    let mut troubles = Vec::new();
    let id = match alone {
        true => controller.id.clone(),
        false => format!("{}-{}", controller.id, own_name(&system, at)),
    };
    let processors = each(client, system.get("Processors"), &mut troubles).await?;
    let (cores, gpus, gpu_model, arch) = computing(&system, &processors);
    let modules = each(client, system.get("Memory"), &mut troubles).await?;
    let memory_gib = memory(&system, &modules, &id, &mut troubles);
    let (disk_gib, wear_percent) = storage(client, &system, &mut troubles).await?;
    let nics: Vec<Value> = each(client, system.get("EthernetInterfaces"), &mut troubles).await?;
    let nics: Vec<&Value> = nics.iter().filter(|n| is_there(n)).collect();
    // what is written beside the address counts where the controller says nothing
    let said = |by_controller: u64, by_hand: u64| if by_controller > 0 { by_controller } else { by_hand };
    let speed = |n: &&Value| n.get("SpeedMbps").and_then(figure);
    let mbps = nics.iter().filter_map(speed).max().unwrap_or(0);
    Ok(Some((
        Machine {
            id,
            provider: String::new(),
            cores: said(cores, controller.cores),
            memory_gib: said(memory_gib, controller.memory_gib),
            disk_gib: said(disk_gib, controller.disk_gib),
            gpus,
            gpu_model,
            nics: nics.len() as u64,
            nic_gbps: if nics.is_empty() {
                0
            } else {
                said(mbps / 1_000, controller.nic_gbps)
            },
            arch: arch
                .or_else(|| controller.arch.clone())
                .unwrap_or_else(|| "unknown".into()),
            features: controller.features.clone(),
            price_class: controller.price_class,
            location: controller.location.clone(),
            zone: controller.zone.clone(),
            rack: controller.rack.clone(),
            health: health(&system),
            wear_percent,
            clean: true,
            taken: false,
            labels: controller.labels.clone(),
        },
        troubles,
    )))
}

/// What a system is called behind its controller: its `Id`, else the end of its link, with what no name may have taken out.
fn own_name(system: &Value, at: &str) -> String {
    let last = at.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name = text(system, "Id").unwrap_or(last);
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') {
            c
        } else {
            '_'
        }
    };
    name.chars().take(40).map(plain).collect()
}

/// Cores, GPUs, their kind, the architecture. A summary speaks where the parts say nothing.
fn computing(system: &Value, processors: &[Value]) -> (u64, u64, Option<String>, Option<String>) {
    let (mut cores, mut gpus, mut gpu_model, mut arch) = (0, 0, None, None);
    for processor in processors.iter().filter(|p| is_there(p)) {
        match text(processor, "ProcessorType").unwrap_or("CPU") {
            "CPU" | "Core" => {
                cores += processor.get("TotalCores").and_then(figure).unwrap_or(0);
                let set = text(processor, "InstructionSet").or_else(|| text(processor, "ProcessorArchitecture"));
                arch = arch.or_else(|| set.and_then(architecture));
            }
            "GPU" => {
                gpus += 1;
                gpu_model = gpu_model.or_else(|| text(processor, "Model").map(model));
            }
            _ => {}
        }
    }
    if cores == 0 {
        let summary = system.get("ProcessorSummary").unwrap_or(&Value::Null);
        let said = |key: &str| summary.get(key).and_then(figure).filter(|n| *n > 0);
        // the last one is a count of processors: the least that can be meant
        cores = said("CoreCount").or_else(|| said("Count")).unwrap_or(0);
    }
    (cores, gpus, gpu_model, arch)
}

fn architecture(said: &str) -> Option<String> {
    let known = match said.to_ascii_lowercase().replace(['-', '_'], "").as_str() {
        "x8664" | "x86" | "amd64" => "x86_64",
        "arma64" | "arm" | "aarch64" | "arm64" => "aarch64",
        "power" | "powerisa" | "ppc64le" => "ppc64le",
        "riscv" | "riscv64" => "riscv64",
        _ => return None,
    };
    Some(known.to_owned())
}

/// A GPU's name as a word: `NVIDIA A100-SXM4-40GB` becomes `nvidia_a100-sxm4-40gb`.
fn model(said: &str) -> String {
    let plain = |c: char| match c.is_ascii_alphanumeric() || c == '-' {
        true => c.to_ascii_lowercase(),
        false => '_',
    };
    said.chars().take(60).map(plain).collect()
}

/// Memory in GiB. Some summaries count in powers of ten, or leave modules out: where the modules say more, they are believed.
fn memory(system: &Value, modules: &[Value], id: &str, troubles: &mut Vec<String>) -> u64 {
    let summary = system.get("MemorySummary").unwrap_or(&Value::Null);
    let said = summary.get("TotalSystemMemoryGiB").and_then(figure).unwrap_or(0);
    let there = modules.iter().filter(|m| is_there(m));
    let mib: u64 = there
        .filter_map(|m| m.get("CapacityMiB").and_then(figure))
        .fold(0, u64::saturating_add);
    let parts = mib / 1_024;
    if parts == 0 || said == 0 {
        return parts.max(said);
    }
    if parts.abs_diff(said) * 100 > parts.max(said) * MEMORY_DOUBT_PERCENT {
        troubles.push(format!(
            "machine {id}: its summary says {said} GiB of memory, its modules {parts} GiB; these are believed"
        ));
        // what is missing from the modules may be broken; what is missing from the summary is a slip of the controller
        return parts;
    }
    parts.max(said)
}

/// Disk in GiB, and how worn its most worn drive is.
async fn storage(client: &Client, system: &Value, troubles: &mut Vec<String>) -> Read<(u64, u64)> {
    let (mut bytes, mut wear) = (0_u64, 0);
    for unit in each(client, system.get("Storage"), troubles).await? {
        let drives = unit
            .get("Drives")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        for drive in drives.iter().take(MEMBERS_MAX).filter_map(link) {
            let drive = match client.get(&drive).await {
                Ok(answer) => answer.body,
                Err(error) if error.kind == Kind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if is_there(&drive) {
                bytes = bytes.saturating_add(drive.get("CapacityBytes").and_then(figure).unwrap_or(0));
                let left = drive.get("PredictedMediaLifeLeftPercent").and_then(figure);
                wear = wear.max(left.map_or(0, |left| 100_u64.saturating_sub(left)));
            }
        }
    }
    if bytes == 0 {
        for unit in each(client, system.get("SimpleStorage"), troubles).await? {
            let devices = unit.get("Devices").and_then(Value::as_array);
            for device in devices.into_iter().flatten().filter(|d| is_there(d)) {
                bytes = bytes.saturating_add(device.get("CapacityBytes").and_then(figure).unwrap_or(0));
            }
        }
    }
    Ok((bytes >> 30, wear))
}

/// The worse of what a system says of itself and of its parts.
fn health(system: &Value) -> Health {
    let said = |key: &str| match system.pointer(&format!("/Status/{key}")).and_then(Value::as_str) {
        Some("OK") => Some(Health::Ok),
        Some("Warning") => Some(Health::Warning),
        Some("Critical") => Some(Health::Critical),
        _ => None,
    };
    let worst = said("Health").max(said("HealthRollup"));
    worst.unwrap_or(Health::Unknown)
}

#[cfg(test)]
mod tests;
