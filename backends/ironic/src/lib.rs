//! Machines by OpenStack Ironic (<https://docs.openstack.org/api-ref/baremetal/>): nodes, ports, traits, allocations.
//!
//! A machine is taken by an *allocation* with that node as its one candidate, named after cluster and machine: Ironic itself then
//! knows who has it, and a second cluster is refused. Where a node stands Ironic doesn't know; it is read from the node's `extra`.
//!
//! Rooms: [`node`] reads one node; here is how nodes are listed, taken and given back.

mod node;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use json_http::{Client, HttpError, Kept, Login, Secret};
use metal_broker::port::{Provider, Stock};
use metal_broker::{Kind, MetalError, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use wire::metal_broker::{MACHINES_MAX, Machine};

/// Nodes in one page.
const PAGE_NODES: usize = 500;
/// The version of the API that is spoken: the first with allocations is 1.52.
const API_VERSION: &str = "1.65";
/// How often an allocation is looked at until it is decided.
const LOOKS_MAX: u32 = 50;
/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a provider's file says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Its tenant.
    pub tenant: String,
    /// `ironic`.
    pub kind: String,
    /// Its address, such as `http://10.0.0.5:6385`.
    pub url: String,
    /// The file with a token of Keystone; renewing it is its writer's work. Without one nobody in particular asks.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// How long one answer may take, in milliseconds.
    #[serde(default = "answer_ms")]
    pub answer_timeout_ms: u64,
    /// Certificates aren't checked.
    #[serde(default)]
    pub any_certificate: bool,
}

fn answer_ms() -> u64 {
    20_000
}

/// The provider.
#[derive(Debug)]
pub struct Ironic {
    name: String,
    settings: Settings,
    client: Client,
}

/// What an HTTP error means here.
fn meant(error: HttpError) -> MetalError {
    let kind = match error.kind {
        json_http::Kind::Unavailable
        | json_http::Kind::Broken
        | json_http::Kind::Garbled
        | json_http::Kind::Refused => Kind::Unavailable,
        json_http::Kind::Denied => Kind::Denied,
        json_http::Kind::NotFound => Kind::NotFound,
        json_http::Kind::Conflict => Kind::Conflict,
        json_http::Kind::Invalid => Kind::Invalid,
    };
    MetalError::new(kind, error.message)
}

/// An allocation's name: by it the same claim finds it again.
fn allocation(machine: &str, cluster: &str) -> String {
    format!("windlass-{cluster}-{machine}")
}

impl Ironic {
    /// By a provider's file.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn new(name: &str, settings: Settings) -> Result<Self> {
        let login = match &settings.token_file {
            None => Login::None,
            Some(path) => Login::Token("x-auth-token", Secret::read(&Kept::File(path.clone())).map_err(meant)?),
        };
        let http = json_http::Settings {
            timeout: Duration::from_millis(settings.answer_timeout_ms),
            any_certificate: settings.any_certificate,
            login,
            headers: vec![("x-openstack-ironic-api-version", API_VERSION.into())],
        };
        Ok(Self {
            name: name.into(),
            client: Client::new(&settings.url, http).map_err(meant)?,
            settings,
        })
    }

    /// Everything of a collection, page after page.
    async fn all(&self, path: &str, key: &str) -> Result<Vec<Value>> {
        let mut found: Vec<Value> = Vec::new();
        let mut marker = String::new();
        loop {
            let body = self.client.get(&format!("{path}{marker}")).await.map_err(meant)?.body;
            let Some(page) = body.get(key).and_then(Value::as_array) else {
                let message = format!("{}{path}: no {key} in its answer", self.client.base());
                return Err(MetalError::new(Kind::Unavailable, message));
            };
            let last = page.last().and_then(|n| n.get("uuid")?.as_str()).map(str::to_owned);
            found.extend(page.iter().cloned());
            if found.len() > MACHINES_MAX * 4 {
                let message = format!("{}{path}: more than {} {key}", self.client.base(), MACHINES_MAX * 4);
                return Err(MetalError::new(Kind::Invalid, message));
            }
            match last {
                Some(last) if page.len() >= PAGE_NODES => marker = format!("&marker={last}"),
                _ => return Ok(found),
            }
        }
    }

    /// A node by its name or UUID, as Ironic shows it.
    async fn node(&self, machine: &str) -> Result<Value> {
        let answer = self.client.get(&format!("/v1/nodes/{machine}")).await;
        answer.map(|a| a.body).map_err(meant)
    }

    /// Interfaces of one node.
    async fn ports_of(&self, uuid: &str) -> Result<u64> {
        let path = format!("/v1/ports?node={uuid}&fields=uuid&limit={PAGE_NODES}");
        Ok(self.all(&path, "ports").await?.len() as u64)
    }

    /// Waits until an allocation is decided: which node it got.
    async fn decided(&self, name: &str) -> Result<std::result::Result<String, String>> {
        for _ in 0..LOOKS_MAX {
            let body = self
                .client
                .get(&format!("/v1/allocations/{name}"))
                .await
                .map_err(meant)?
                .body;
            match body.get("state").and_then(Value::as_str) {
                Some("active") => {
                    let node = body.get("node_uuid").and_then(Value::as_str).unwrap_or_default();
                    return Ok(Ok(node.to_owned()));
                }
                Some("error") => {
                    let why = body
                        .get("last_error")
                        .and_then(Value::as_str)
                        .unwrap_or("no reason given");
                    return Ok(Err(why.chars().take(200).collect()));
                }
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
        Err(MetalError::new(
            Kind::Unavailable,
            format!("{}: allocation {name} isn't decided", self.client.base()),
        ))
    }

    async fn drop_allocation(&self, name: &str) -> Result<()> {
        match self.client.delete(&format!("/v1/allocations/{name}")).await {
            Err(error) if error.kind != json_http::Kind::NotFound => Err(meant(error)),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Provider for Ironic {
    fn tenant(&self) -> &str {
        &self.settings.tenant
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn kind(&self) -> &'static str {
        "ironic"
    }
    async fn stock(&self) -> Result<Stock> {
        let nodes = self
            .all(&format!("/v1/nodes/detail?limit={PAGE_NODES}"), "nodes")
            .await?;
        let ports = self
            .all(&format!("/v1/ports/detail?limit={PAGE_NODES}"), "ports")
            .await?;
        let mut by_node: HashMap<&str, u64> = HashMap::new();
        for port in &ports {
            if let Some(node) = port.get("node_uuid").and_then(Value::as_str) {
                *by_node.entry(node).or_default() += 1;
            }
        }
        let mut stock = Stock::default();
        for node in &nodes {
            let uuid = node.get("uuid").and_then(Value::as_str).unwrap_or_default();
            stock
                .machines
                .push(node::machine(node, by_node.get(uuid).copied().unwrap_or(0)));
        }
        Ok(stock)
    }
    async fn look(&self, machine: &str) -> Result<Machine> {
        let shown = self.node(machine).await?;
        let uuid = shown.get("uuid").and_then(Value::as_str).unwrap_or_default();
        let ports = self.ports_of(uuid).await?;
        Ok(node::machine(&shown, ports))
    }
    async fn take(&self, machine: &str, cluster: &str) -> Result<Machine> {
        let shown = self.node(machine).await?;
        let uuid = shown.get("uuid").and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = allocation(machine, cluster);
        let asked = json!({
            "name": name,
            "resource_class": shown.get("resource_class").cloned().unwrap_or(Value::Null),
            "candidate_nodes": [uuid],
        });
        match self.client.post("/v1/allocations", &asked).await {
            Ok(_) => {}
            // the same claim came before; what became of it is looked at below
            Err(error) if error.kind == json_http::Kind::Conflict => {}
            Err(error) => return Err(meant(error)),
        }
        match self.decided(&name).await? {
            Ok(node) if node == uuid => self.look(machine).await,
            Ok(other) => {
                let message = format!("allocation {name} got node {other}, not {machine}; nothing was changed");
                Err(MetalError::new(Kind::Conflict, message))
            }
            Err(why) => {
                self.drop_allocation(&name).await?;
                let message = format!("Ironic doesn't give machine {machine} to cluster {cluster}: {why}");
                Err(MetalError::new(Kind::Conflict, message))
            }
        }
    }
    async fn give_back(&self, machine: &str, cluster: &str) -> Result<()> {
        self.drop_allocation(&allocation(machine, cluster)).await
    }
}
