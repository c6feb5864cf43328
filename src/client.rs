//! How the command line reaches the concerns: over a running daemon's socket, or over the bus of a house in this process.
//! Both are a [`bus::Bus`], so a verb can't tell them apart.

use std::sync::Arc;

use bus::{Bus, Events};
use wire::subject::EventFilter;
use wire::{Code, ErrorBody, Headers, HostId, Request, Role, Subject};

use crate::audit::Caller;
use crate::backends;
use crate::gateway::client::{self, GatewayBus, Remote, Way};
use crate::house::House;

/// A connection to the concerns of one host.
pub struct Client {
    bus: Arc<dyn Bus>,
    host: HostId,
    request_timeout_ms: u64,
    events_queued_max: usize,
    house: Option<House>,
    /// The public key of the host that answers, as its gateway tells it: over the servers nobody can be sure of it.
    member_key: Option<String>,
}

/// Who works in this process: whoever began it.
fn ourselves() -> Caller {
    Caller {
        who: format!("uid {}", rustix::process::geteuid().as_raw()),
        role: Role::Admin,
        from: format!("this command, pid {}", std::process::id()),
    }
}

impl Client {
    /// Through the daemon when it runs; `None` when it does not.
    ///
    /// # Errors
    /// `denied` when its socket may not be used, `unavailable` when it doesn't answer like one.
    pub async fn daemon(config: &config::Config) -> Result<Option<Self>, ErrorBody> {
        let socket = &config.gateway.socket;
        let Some(info) = client::probe(socket).await? else {
            return Ok(None);
        };
        let bus = GatewayBus::new(socket.clone());
        let client = Self::over(Arc::new(bus), info.host, config, None);
        Ok(Some(Self {
            member_key: info.member_key,
            ..client
        }))
    }
    /// Through the gateway at an address.
    ///
    /// # Errors
    /// `denied` when it doesn't take the token, `unavailable` when none answers.
    pub async fn remote(remote: &Remote, config: &config::Config) -> Result<Self, ErrorBody> {
        let info = client::probe_address(remote).await?;
        let bus = GatewayBus::over(Way::Address(remote.clone()));
        Ok(Self {
            member_key: info.member_key,
            ..Self::over(Arc::new(bus), info.host, config, None)
        })
    }
    /// Through a house in this process.
    ///
    /// # Errors
    /// `conflict` when another process holds the state.
    pub async fn here(config: &config::Config) -> Result<Self, ErrorBody> {
        let house = House::start(config, crate::house::Role::OneShot).await?;
        Ok(Self::over(house.bus(), config.host_id.clone(), config, Some(house)))
    }
    /// Through the servers of a fleet, to the host that the configuration names.
    ///
    /// # Errors
    /// `unavailable` when no server answers in time, `denied` when they refuse us.
    pub async fn lattice(config: &config::Config) -> Result<Self, ErrorBody> {
        let clock: Arc<dyn runtime::Clock> = Arc::new(runtime::SystemClock::new());
        let bus = backends::lattice::ask(config, &clock).await?;
        Ok(Self::over(bus, config.host_id.clone(), config, None))
    }
    fn over(bus: Arc<dyn Bus>, host: HostId, config: &config::Config, house: Option<House>) -> Self {
        Self {
            bus,
            host,
            request_timeout_ms: config.bus.request_timeout_s * 1000,
            events_queued_max: usize::try_from(config.bus.events_queued_max).unwrap_or(usize::MAX),
            house,
            member_key: None,
        }
    }
    /// The public key of the host that answers, when it is in a fleet and was reached through its gateway.
    pub fn member_key(&self) -> Option<&str> {
        self.member_key.as_deref()
    }
    /// The host that answers.
    pub fn host(&self) -> &HostId {
        &self.host
    }
    /// True when a daemon does the work: it goes on without us.
    pub fn is_daemon(&self) -> bool {
        self.house.is_none()
    }
    /// Headers with the configured time-out.
    pub fn headers(&self) -> Headers {
        Headers {
            timeout_ms: Some(self.request_timeout_ms),
            ..Headers::default()
        }
    }
    /// Asks.
    ///
    /// # Errors
    /// As the server answers, or the bus.
    pub async fn call<R: Request>(&self, request: &R) -> Result<R::Reply, ErrorBody> {
        self.call_once(request, None).await
    }
    /// Asks, with an idempotency key.
    ///
    /// # Errors
    /// As the server answers, or the bus.
    pub async fn call_once<R: Request>(&self, request: &R, request_id: Option<String>) -> Result<R::Reply, ErrorBody> {
        let headers = Headers {
            request_id,
            ..self.headers()
        };
        let answer = bus::call(&*self.bus, &self.host, request, headers).await;
        if let Some(house) = &self.house
            && let Ok(subject) = R::subject(&self.host)
        {
            let said = serde_json::to_vec(request).unwrap_or_default();
            let ended = answer.as_ref().map(|_| ());
            house
                .audit()
                .note_request(&ourselves(), &subject, &said, bus::trace::current(), ended);
        }
        answer
    }
    /// Asks with any JSON.
    ///
    /// # Errors
    /// As the server answers, or the bus.
    pub async fn call_json(
        &self,
        subject: &Subject,
        request: &serde_json::Value,
        headers: Headers,
    ) -> Result<serde_json::Value, ErrorBody> {
        let answer = bus::call_json(&*self.bus, subject, request, headers).await;
        if let Some(house) = &self.house {
            let (said, ended) = (request.to_string(), answer.as_ref().map(|_| ()));
            let audit = house.audit();
            audit.note_request(&ourselves(), subject, said.as_bytes(), bus::trace::current(), ended);
        }
        answer
    }
    /// Hears events from now on.
    ///
    /// # Errors
    /// `unavailable` when the daemon has gone.
    pub async fn events(&self, filter: EventFilter) -> Result<Events, ErrorBody> {
        self.bus
            .subscribe(filter, self.events_queued_max)
            .await
            .map_err(ErrorBody::from)
    }
    /// Lets go: a house in this process is drained.
    pub async fn close(self) {
        if let Some(house) = self.house {
            house.stop().await;
        }
    }
}

/// What a verb says that needs a daemon when there is none.
pub fn no_daemon(config: &config::Config) -> ErrorBody {
    ErrorBody::new(
        Code::Unavailable,
        format!("no daemon answers at {}", config.gateway.socket.display()),
    )
    .hint("start one with `windlass serve`; snapshot, restore, repo, jobs and send work without it")
}
