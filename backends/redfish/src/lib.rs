//! Machines by Redfish (DMTF DSP0266, <https://redfish.dmtf.org/>): each machine behind a controller of its own.
//!
//! ```text
//! controllers, `at_once` at a time -> service root -> systems -> processors, memory, storage, interfaces -> Machine
//! ```
//!
//! A controller that is slow, broken or answers a web page is told of and holds no other up; what was known of its machines stays.
//! Where a machine stands no controller knows: its rack, zone and location are written beside its address.
//!
//! Redfish knows nothing of who has a machine: taking one is looking at it once more. Credentials are references; they are read
//! when the provider is built and printed nowhere.
//!
//! Rooms: [`system`] reads one system, and what vendors write otherwise; here is who is asked and how many at once.

mod system;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use json_http::{Client, HttpError, Kept, Login, Secret};
use metal_broker::core::name::is_name;
use metal_broker::port::{Provider, Stock};
use metal_broker::{Kind, MetalError, Result};
use serde::Deserialize;
use wire::metal_broker::Machine;

/// Most controllers of one provider.
const CONTROLLERS_MAX: usize = 100_000;
/// Most systems behind one controller.
const SYSTEMS_MAX: usize = 256;

/// What a provider's file says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Its tenant.
    pub tenant: String,
    /// `redfish`.
    pub kind: String,
    /// Who asks.
    #[serde(default)]
    pub user: Option<String>,
    /// The file with the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The variable with the password.
    #[serde(default)]
    pub password_env: Option<String>,
    /// How long one answer may take, in milliseconds.
    #[serde(default = "answer_ms")]
    pub answer_timeout_ms: u64,
    /// How long one controller may take for all that it is asked, in milliseconds.
    #[serde(default = "controller_ms")]
    pub controller_timeout_ms: u64,
    /// Controllers that are asked at once.
    #[serde(default = "at_once")]
    pub at_once: usize,
    /// Certificates aren't checked.
    #[serde(default)]
    pub any_certificate: bool,
    /// The controllers.
    pub controllers: Vec<Controller>,
}

fn answer_ms() -> u64 {
    5_000
}
fn controller_ms() -> u64 {
    20_000
}
fn at_once() -> usize {
    64
}
fn place() -> String {
    "default".into()
}

/// A controller, and what it doesn't know of its machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Controller {
    /// Its address.
    pub url: String,
    /// Its machine's id; with several systems behind it, each adds its own.
    pub id: String,
    /// Where its machine stands.
    pub rack: String,
    /// Its zone.
    #[serde(default = "place")]
    pub zone: String,
    /// Its location.
    #[serde(default = "place")]
    pub location: String,
    /// What its machine costs.
    #[serde(default)]
    pub price_class: u64,
    /// The architecture, where the controller doesn't say.
    #[serde(default)]
    pub arch: Option<String>,
    /// What the machine can do beyond what the controller says.
    #[serde(default)]
    pub features: Vec<String>,
    /// What it carries.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Cores, where the controller doesn't say.
    #[serde(default)]
    pub cores: u64,
    /// Memory in GiB, where the controller doesn't say.
    #[serde(default)]
    pub memory_gib: u64,
    /// Disk in GiB, where the controller doesn't say.
    #[serde(default)]
    pub disk_gib: u64,
    /// The fastest interface in Gbit/s, where the controller doesn't say.
    #[serde(default)]
    pub nic_gbps: u64,
}

/// The provider.
#[derive(Debug)]
pub struct Redfish {
    name: String,
    settings: Settings,
    clients: Vec<Client>,
    /// Which machines stand behind which controller, as far as is known: by index.
    behind: Mutex<HashMap<String, (usize, String)>>,
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

/// Who asks, by what a file says.
fn login(settings: &Settings) -> Result<Login> {
    let kept = match (&settings.password_file, &settings.password_env) {
        (Some(path), None) => Some(Kept::File(path.clone())),
        (None, Some(name)) => Some(Kept::Env(name.clone())),
        (None, None) => None,
        (Some(_), Some(_)) => {
            let message = "password_file and password_env: one of them is enough";
            return Err(MetalError::new(Kind::Invalid, message));
        }
    };
    match (&settings.user, kept) {
        (None, None) => Ok(Login::None),
        (Some(user), Some(kept)) => Ok(Login::Basic(user.clone(), Secret::read(&kept).map_err(meant)?)),
        _ => Err(MetalError::new(
            Kind::Invalid,
            "a user comes with a password_file or a password_env, and the other way round",
        )),
    }
}

impl Redfish {
    /// By a provider's file.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn new(name: &str, settings: Settings) -> Result<Self> {
        let wrong = |why: String| Err(MetalError::new(Kind::Invalid, why));
        if settings.controllers.len() > CONTROLLERS_MAX {
            return wrong(format!("more than {CONTROLLERS_MAX} controllers"));
        }
        if settings.at_once == 0 || settings.at_once > 1_024 {
            return wrong("at_once is from 1 to 1024".into());
        }
        let mut ids = std::collections::HashSet::new();
        for controller in &settings.controllers {
            if !is_name(&controller.id) || !ids.insert(&controller.id) {
                return wrong(format!(
                    "controller id '{}' is not a name, or stands twice",
                    controller.id.escape_debug()
                ));
            }
        }
        let http = json_http::Settings {
            timeout: Duration::from_millis(settings.answer_timeout_ms),
            any_certificate: settings.any_certificate,
            login: login(&settings)?,
            headers: vec![("accept", "application/json".into()), ("odata-version", "4.0".into())],
        };
        let client = |c: &Controller| Client::new(&c.url, http.clone()).map_err(meant);
        Ok(Self {
            name: name.into(),
            clients: settings.controllers.iter().map(client).collect::<Result<_>>()?,
            behind: Mutex::default(),
            settings,
        })
    }

    /// All systems behind one controller.
    async fn ask(&self, at: usize) -> Result<(Vec<Machine>, Vec<String>)> {
        let (client, controller) = (&self.clients[at], &self.settings.controllers[at]);
        let patience = Duration::from_millis(self.settings.controller_timeout_ms);
        let all = async {
            let links = system::systems(client, SYSTEMS_MAX).await?;
            let (mut machines, mut troubles) = (Vec::new(), Vec::new());
            let alone = links.len() == 1;
            for link in links {
                let read = system::read(client, controller, &link, alone).await?;
                if let Some((machine, doubts)) = read {
                    troubles.extend(doubts);
                    let known = (at, link);
                    self.known().insert(machine.id.clone(), known);
                    machines.push(machine);
                }
            }
            Ok((machines, troubles))
        };
        match tokio::time::timeout(patience, all).await {
            Ok(read) => read.map_err(meant),
            Err(_) => Err(MetalError::new(
                Kind::Unavailable,
                format!("{}: not done in {} ms", client.base(), patience.as_millis()),
            )),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, (usize, String)>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machines that stood behind a controller when it last answered; by its own id where it never did.
    fn stood_behind(&self, at: usize) -> Vec<String> {
        let known = self.known();
        let mut ids: Vec<String> = known
            .iter()
            .filter(|(_, (c, _))| *c == at)
            .map(|(id, _)| id.clone())
            .collect();
        if ids.is_empty() {
            ids.push(self.settings.controllers[at].id.clone());
        }
        ids
    }
}

#[async_trait]
impl Provider for Redfish {
    fn tenant(&self) -> &str {
        &self.settings.tenant
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn kind(&self) -> &'static str {
        "redfish"
    }
    async fn stock(&self) -> Result<Stock> {
        let asks = (0..self.clients.len()).map(|at| async move { (at, self.ask(at).await) });
        let mut answers = futures::stream::iter(asks).buffer_unordered(self.settings.at_once);
        let mut stock = Stock::default();
        while let Some((at, answer)) = answers.next().await {
            match answer {
                Ok((machines, troubles)) => {
                    stock.machines.extend(machines);
                    stock.troubles.extend(troubles);
                }
                Err(error) => {
                    stock
                        .troubles
                        .push(format!("{}; what was known of it stays", error.message));
                    stock.unread.extend(self.stood_behind(at));
                }
            }
        }
        stock.machines.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        stock.troubles.sort_unstable();
        Ok(stock)
    }
    async fn look(&self, machine: &str) -> Result<Machine> {
        let known = self.known().get(machine).map(|(at, _)| *at);
        let by_id = || {
            let begins = |c: &Controller| machine == c.id || machine.starts_with(&format!("{}-", c.id));
            self.settings.controllers.iter().position(begins)
        };
        let absent = || MetalError::new(Kind::NotFound, format!("no controller has machine {machine}"));
        let at = known.or_else(by_id).ok_or_else(absent)?;
        let (machines, _) = self.ask(at).await?;
        machines.into_iter().find(|m| m.id == machine).ok_or_else(absent)
    }
    async fn take(&self, machine: &str, _: &str) -> Result<Machine> {
        self.look(machine).await
    }
    async fn give_back(&self, _: &str, _: &str) -> Result<()> {
        Ok(())
    }
}
