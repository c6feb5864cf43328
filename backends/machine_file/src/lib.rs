//! Machines from a file of TOML or CSV: for those whose inventory is kept by hand, or written by another program.
//!
//! The file is the provider: it is read again whenever it changed, so what a claim is verified against is what stands there now. It
//! knows nothing of who has a machine; that is the broker's own booking.

use std::fs::Metadata;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use metal_broker::port::{Provider, Stock};
use metal_broker::{Kind, MetalError, Result};
use serde::Deserialize;
use wire::metal_broker::{Health, MACHINES_MAX, Machine};

/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The file at one moment.
#[derive(Debug)]
struct AtOneMoment {
    stamp: (u64, Option<std::time::SystemTime>),
    stock: Arc<Stock>,
}

/// The provider.
#[derive(Debug)]
pub struct MachineFile {
    tenant: String,
    name: String,
    path: PathBuf,
    read: Arc<Mutex<Option<AtOneMoment>>>,
}

impl MachineFile {
    /// Of a file, which needn't be there yet.
    pub fn new(tenant: &str, name: &str, path: &Path) -> Self {
        Self {
            tenant: tenant.into(),
            name: name.into(),
            path: path.into(),
            read: Arc::default(),
        }
    }
    async fn now(&self) -> Result<Arc<Stock>> {
        let (path, read) = (self.path.clone(), self.read.clone());
        let task = tokio::task::spawn_blocking(move || {
            let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
            let metadata = std::fs::metadata(&path).map_err(|e| unreadable(&path, &e))?;
            let stamp = stamp(&metadata);
            if let Some(known) = read.as_ref().filter(|known| known.stamp == stamp) {
                return Ok(known.stock.clone());
            }
            let stock = Arc::new(parse(&path, &text(&path)?)?);
            *read = Some(AtOneMoment {
                stamp,
                stock: stock.clone(),
            });
            Ok(stock)
        });
        task.await
            .map_err(|e| MetalError::new(Kind::Internal, format!("reading {} ended: {e}", self.path.display())))?
    }
}

fn stamp(metadata: &Metadata) -> (u64, Option<std::time::SystemTime>) {
    (metadata.len(), metadata.modified().ok())
}

fn unreadable(path: &Path, error: &std::io::Error) -> MetalError {
    let kind = match error.kind() {
        std::io::ErrorKind::PermissionDenied => Kind::Denied,
        _ => Kind::Unavailable,
    };
    MetalError::new(kind, format!("{} can't be read: {error}", path.display()))
}

fn text(path: &Path) -> Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|e| unreadable(path, &e))?;
    let taken = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    if taken.map_err(|e| unreadable(path, &e))? as u64 > FILE_BYTES_MAX {
        let message = format!("{} has more than {FILE_BYTES_MAX} bytes", path.display());
        return Err(MetalError::new(Kind::Invalid, message));
    }
    Ok(text)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    machines: Vec<toml::Value>,
}

/// Reads a file's text by the ending of its name. A row that means nothing is told and left out; a file that can't be read at all
/// is an error.
///
/// # Errors
/// `Invalid`.
pub fn parse(path: &Path, text: &str) -> Result<Stock> {
    let wrong = |why: String| MetalError::new(Kind::Invalid, format!("{}: {why}", path.display()));
    let stock = match path.extension().and_then(|e| e.to_str()) {
        Some("csv") => by_rows(text).map_err(wrong)?,
        Some("toml") => by_tables(text).map_err(wrong)?,
        _ => return Err(wrong("an inventory's name ends with .toml or .csv".into())),
    };
    if stock.machines.len() > MACHINES_MAX {
        return Err(wrong(format!(
            "{} machines, more than {MACHINES_MAX}",
            stock.machines.len()
        )));
    }
    Ok(stock)
}

fn by_tables(text: &str) -> std::result::Result<Stock, String> {
    let whole: Whole = toml::from_str(text).map_err(|e| e.to_string().trim().to_owned())?;
    let mut stock = Stock::default();
    for (n, table) in whole.machines.into_iter().enumerate() {
        let id = table
            .get("id")
            .and_then(|id| id.as_str())
            .unwrap_or("without an id")
            .to_owned();
        let unknown = table
            .as_table()
            .and_then(|t| t.keys().find(|k| !COLUMNS.contains(&k.as_str())).cloned());
        let read = match unknown {
            Some(key) => Err(format!("nothing is called '{key}'")),
            None => table
                .try_into::<Machine>()
                .map_err(|e| e.to_string().trim().replace('\n', " ")),
        };
        match read {
            Ok(machine) => stock.machines.push(machine),
            Err(why) => stock
                .troubles
                .push(format!("machine {} ({id}): {why}; it is left out", n + 1)),
        }
    }
    Ok(stock)
}

/// Columns of CSV, and keys of TOML.
const COLUMNS: [&str; 18] = [
    "id",
    "cores",
    "memory_gib",
    "disk_gib",
    "gpus",
    "gpu_model",
    "nics",
    "nic_gbps",
    "arch",
    "features",
    "price_class",
    "location",
    "zone",
    "rack",
    "health",
    "wear_percent",
    "clean",
    "labels",
];

fn by_rows(text: &str) -> std::result::Result<Stock, String> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .flexible(false)
        .from_reader(text.as_bytes());
    let headings = reader.headers().map_err(|e| e.to_string())?.clone();
    if let Some(odd) = headings.iter().find(|h| !COLUMNS.contains(h)) {
        return Err(format!(
            "nothing is called '{}'; columns are {}",
            odd.escape_debug(),
            COLUMNS.join(", ")
        ));
    }
    for needed in ["id", "cores", "memory_gib", "arch", "rack"] {
        if headings.iter().all(|h| h != needed) {
            return Err(format!("there is no column {needed}"));
        }
    }
    let mut stock = Stock::default();
    for (n, row) in reader.records().enumerate() {
        // the first line has the headings
        let line = row
            .as_ref()
            .ok()
            .and_then(|r| r.position())
            .map_or(n as u64 + 2, csv::Position::line);
        let read = row.map_err(|e| e.to_string()).and_then(|row| by_row(&headings, &row));
        match read {
            Ok(machine) => stock.machines.push(machine),
            Err(why) => stock.troubles.push(format!("line {line}: {why}; it is left out")),
        }
    }
    Ok(stock)
}

fn by_row(headings: &csv::StringRecord, row: &csv::StringRecord) -> std::result::Result<Machine, String> {
    let cell = |name: &str| {
        let at = headings.iter().position(|h| h == name)?;
        row.get(at).filter(|text| !text.is_empty())
    };
    let number = |name: &str| match cell(name) {
        None => Ok(0),
        Some(text) => text
            .parse::<u64>()
            .map_err(|_| format!("{name} '{}' is no whole number", text.escape_debug())),
    };
    let place = |name: &str| cell(name).unwrap_or("default").to_owned();
    let words = |name: &str| {
        let words = cell(name).unwrap_or_default().split([' ', ';']);
        words.filter(|w| !w.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let health = match cell("health") {
        None | Some("ok") => Health::Ok,
        Some("unknown") => Health::Unknown,
        Some("warning") => Health::Warning,
        Some("critical") => Health::Critical,
        Some(other) => return Err(format!("health '{}' is none", other.escape_debug())),
    };
    let clean = match cell("clean") {
        None | Some("true" | "yes") => true,
        Some("false" | "no") => false,
        Some(other) => return Err(format!("clean '{}' is neither true nor false", other.escape_debug())),
    };
    let labels = words("labels")
        .iter()
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(format!("label '{}' is no KEY=VALUE", pair.escape_debug())),
        })
        .collect::<std::result::Result<_, _>>()?;
    Ok(Machine {
        id: cell("id").ok_or("no id")?.to_owned(),
        provider: String::new(),
        cores: number("cores")?,
        memory_gib: number("memory_gib")?,
        disk_gib: number("disk_gib")?,
        gpus: number("gpus")?,
        gpu_model: cell("gpu_model").map(str::to_owned),
        nics: number("nics")?,
        nic_gbps: number("nic_gbps")?,
        arch: cell("arch").ok_or("no arch")?.to_owned(),
        features: words("features"),
        price_class: number("price_class")?,
        location: place("location"),
        zone: place("zone"),
        rack: cell("rack").ok_or("no rack")?.to_owned(),
        health,
        wear_percent: number("wear_percent")?,
        clean,
        taken: false,
        labels,
    })
}

#[async_trait]
impl Provider for MachineFile {
    fn tenant(&self) -> &str {
        &self.tenant
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn kind(&self) -> &'static str {
        "file"
    }
    async fn stock(&self) -> Result<Stock> {
        Ok((*self.now().await?).clone())
    }
    async fn look(&self, machine: &str) -> Result<Machine> {
        let stock = self.now().await?;
        let found = stock.machines.iter().find(|m| m.id == machine).cloned();
        found.ok_or_else(|| {
            MetalError::new(
                Kind::NotFound,
                format!("machine {machine} doesn't stand in {}", self.path.display()),
            )
        })
    }
    async fn take(&self, machine: &str, _: &str) -> Result<Machine> {
        self.look(machine).await
    }
    async fn give_back(&self, _: &str, _: &str) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
