//! Three nats-servers that are one cluster, for streams of three replicas.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::server::{Membership, Server, ServerOptions};
use crate::process::free_port;

/// How long the cluster may take to choose a leader.
const FORM_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Another process may take a port between our look and the servers' start.
const PORT_TRIES: usize = 5;
const SERVERS: usize = 3;

#[expect(
    clippy::disallowed_methods,
    reason = "a helper that waits for a process measures real time"
)]
fn now() -> Instant {
    Instant::now()
}

/// Three servers `n1`, `n2`, `n3`.
#[derive(Debug)]
pub struct Cluster {
    /// The servers, to kill, freeze and restart.
    pub servers: Vec<Server>,
}

impl Cluster {
    /// Starts three below `directory` and waits until they have a leader and three members.
    ///
    /// # Errors
    /// As [`Server::start`]; `TimedOut` when they don't find each other.
    pub fn start(directory: &Path) -> io::Result<Self> {
        Self::start_routed(directory, |ports, n| {
            Ok(ports
                .iter()
                .enumerate()
                .filter(|(i, _)| *i != n)
                .map(|(_, p)| *p)
                .collect())
        })
    }

    /// As [`Cluster::start`], where `routes(ports, n)` says at which ports server `n` finds the others that listen on
    /// `ports`: a proxy between them goes here.
    ///
    /// # Errors
    /// As [`Cluster::start`]; what `routes` says.
    pub fn start_routed(
        directory: &Path,
        mut routes: impl FnMut(&[u16], usize) -> io::Result<Vec<u16>>,
    ) -> io::Result<Self> {
        let mut last = None;
        for attempt in 0..PORT_TRIES {
            let ports = (0..SERVERS).map(|_| free_port()).collect::<io::Result<Vec<u16>>>()?;
            let mut servers = Vec::new();
            for (n, port) in ports.iter().enumerate() {
                let membership = Membership {
                    port: *port,
                    routes: routes(&ports, n)?,
                };
                let name = format!("n{}", n + 1);
                let place = directory.join(format!("{name}-{attempt}"));
                servers.push(Server::prepared(
                    &name,
                    &place,
                    ServerOptions::default(),
                    Some(membership),
                )?);
            }
            let mut cluster = Self { servers };
            match cluster.form() {
                Ok(()) => return Ok(cluster),
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => last = Some(e),
                Err(e) => return Err(e),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::other("no free ports")))
    }

    fn form(&mut self) -> io::Result<()> {
        self.servers.iter_mut().try_for_each(Server::spawn)?;
        self.servers.iter_mut().try_for_each(Server::wait_healthy)?;
        self.wait_whole()
    }

    /// Waits until every server sees a leader and every other server.
    ///
    /// # Errors
    /// `TimedOut`.
    pub fn wait_whole(&self) -> io::Result<()> {
        let until = now() + FORM_TIMEOUT;
        while !self.servers.iter().all(|s| self.is_whole(s)) {
            if now() >= until {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the cluster doesn't come together",
                ));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn is_whole(&self, server: &Server) -> bool {
        let Ok(jsz) = server.monitor("/jsz") else { return false };
        let meta = &jsz["meta_cluster"];
        let Some(leader) = meta["leader"].as_str().filter(|l| !l.is_empty()) else {
            return false;
        };
        // what a follower tells of the others is old
        let all_follow = || {
            let followers = meta["replicas"].as_array().map_or(&[][..], Vec::as_slice);
            followers.len() == SERVERS - 1 && followers.iter().all(|r| r["offline"] != true && r["current"] == true)
        };
        meta["cluster_size"] == SERVERS && (leader != server.name() || all_follow())
    }

    /// Where clients reach it: every server's URL, with commas.
    pub fn urls(&self) -> String {
        let urls: Vec<String> = self.servers.iter().map(Server::url).collect();
        urls.join(",")
    }

    /// Which server leads `stream` now, by its place in [`Cluster::servers`]; `None` while nobody does.
    pub fn leader_of(&self, stream: &str) -> Option<usize> {
        self.servers.iter().enumerate().find_map(|(n, server)| {
            let jsz = server.monitor("/jsz?accounts=true&streams=true").ok()?;
            let streams = jsz["account_details"][0]["stream_detail"].as_array()?.clone();
            let found = streams.iter().find(|s| s["name"] == stream)?;
            (found["cluster"]["leader"] == server.name()).then_some(n)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn three_servers_come_together_and_outlive_one() {
        let scratch = Scratch::new("nats-cluster").unwrap();
        let mut cluster = Cluster::start(scratch.path()).unwrap();
        assert_eq!(cluster.urls().split(',').count(), 3);
        cluster.servers[0].kill().unwrap();
        cluster.servers[0].restart().unwrap();
        cluster.wait_whole().unwrap();
        assert_eq!(cluster.leader_of("NO_SUCH_STREAM"), None);
    }
}
