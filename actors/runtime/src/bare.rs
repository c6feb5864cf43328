//! For simulations: a house without threads. Its id, its beats, its orders and its jobs are a house's own; concerns, whose
//! mailboxes have threads, are left out. All of it runs on the tokio runtime that the caller drives.

use std::time::Duration;

use serde_json::Value;
use wire::hosts::{HostInfo, HostOrder};
use wire::job::JobAccepted;
use wire::{ErrorBody, Headers, HostId};

use crate::hosts::{Beating, Hosts};
use crate::house::foundations;
use crate::job_desk::Desk;
use crate::job_runner::Runner;
use crate::{HouseOptions, Kinds, RuntimeError};
use std::sync::Arc;

/// A house without threads.
#[derive(Debug)]
pub struct Bare {
    desk: Arc<Desk>,
    hosts: Option<(Arc<Hosts>, Beating)>,
    runner: Runner,
}

impl Bare {
    /// As [`crate::House::open`], with jobs of these kinds.
    ///
    /// # Errors
    /// As [`crate::House::open`].
    pub async fn open(options: HouseOptions, concern: &'static str, kinds: Kinds) -> Result<Self, RuntimeError> {
        let (desk, hosts) = foundations(&options).await?;
        let runner = Runner::new(desk.clone(), concern);
        runner.renew(kinds);
        Ok(Self { desk, hosts, runner })
    }

    /// As a verb of the concern that is a job.
    ///
    /// # Errors
    /// As the job store's.
    pub async fn submit(
        &self,
        kind: &str,
        request: Value,
        headers: Headers,
        target: jobs::Target,
    ) -> Result<JobAccepted, ErrorBody> {
        self.runner.submit(kind, request, headers, target).await
    }

    /// What it knows of all hosts.
    pub fn hosts(&self) -> Vec<HostInfo> {
        let all = |(hosts, _): &(Arc<Hosts>, Beating)| hosts.book().all(self.desk.clock.monotonic_ms());
        self.hosts.as_ref().map(all).unwrap_or_default()
    }

    /// Tells a host what a person wants of it.
    ///
    /// # Errors
    /// As `hosts.cordon`.
    pub async fn tell(&self, host: HostId, order: HostOrder) -> Result<HostInfo, ErrorBody> {
        match &self.hosts {
            Some((hosts, _)) => hosts.tell(host, order).await,
            None => Err(ErrorBody::new(wire::Code::NotFound, "this house knows no hosts")),
        }
    }

    /// Returns when another process has this host's id.
    pub async fn evicted(&self) {
        match &self.hosts {
            Some((hosts, _)) => hosts.evicted.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Ends in good order; how many jobs were not finished in time.
    pub async fn drain(&self, timeout: Duration) -> usize {
        let left = self.desk.drain(timeout).await;
        if let Some((_, beating)) = &self.hosts {
            beating.stop().await;
        }
        left
    }
}
