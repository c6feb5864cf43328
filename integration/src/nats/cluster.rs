//! Three nats-servers that are one cluster, for streams of three replicas.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Link;
use super::server::{Membership, Server, ServerOptions};
use crate::netns::Namespace;
use crate::process::free_port;

/// How long the cluster may take to choose a leader.
const FORM_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Another process may take a port between our look and the servers' start.
const PORT_TRIES: usize = 5;
const SERVERS: usize = 3;
/// Where servers find each other in namespaces, whose ports are all free.
const ROUTE_PORT: u16 = 6222;

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

/// The links between the servers of a cluster.
#[derive(Debug)]
pub struct Links(Vec<(usize, usize, Link)>);

impl Links {
    fn of(&self, server: usize) -> impl Iterator<Item = &Link> {
        let touches = move |(from, to, _): &&(usize, usize, Link)| *from == server || *to == server;
        self.0.iter().filter(touches).map(|(.., link)| link)
    }

    /// Cuts a server from the others, in silence: what is under way is held back.
    pub fn cut(&self, server: usize) {
        self.of(server).for_each(Link::cut);
    }

    /// What was held back goes on its way, and what follows.
    pub fn heal(&self, server: usize) {
        self.of(server).for_each(Link::heal);
    }
}

impl Cluster {
    /// Starts three below `directory` and waits until they have a leader and three members.
    ///
    /// # Errors
    /// As [`Server::start`]; `TimedOut` when they don't find each other.
    pub fn start(directory: &Path) -> io::Result<Self> {
        Self::start_routed(directory, false, |ports, n| {
            Ok(ports
                .iter()
                .enumerate()
                .filter(|(i, _)| *i != n)
                .map(|(_, p)| *p)
                .collect())
        })
    }

    /// As [`Cluster::start`], with a link between each two servers that can be cut.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_linked(directory: &Path) -> io::Result<(Self, Links)> {
        let mut links = Links(Vec::new());
        let cluster = Self::start_routed(directory, true, |ports, n| {
            if n == 0 {
                links.0.clear();
            }
            let mut routes = Vec::new();
            for (other, port) in ports.iter().enumerate().filter(|(other, _)| *other != n) {
                let link = Link::to(*port)?;
                routes.push(link.port());
                links.0.push((n, other, link));
            }
            Ok(routes)
        })?;
        Ok((cluster, links))
    }

    /// As [`Cluster::start`], each server in a namespace.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_in(places: [&Namespace; SERVERS], directory: &Path) -> io::Result<Self> {
        let at = |place: &Namespace| format!("{}:{ROUTE_PORT}", place.address());
        let mut servers = Vec::new();
        for (n, place) in places.into_iter().enumerate() {
            let name = format!("n{}", n + 1);
            let membership = Membership {
                port: ROUTE_PORT,
                routes: places.into_iter().map(at).filter(|other| *other != at(place)).collect(),
                hidden: false,
            };
            servers.push(Server::prepared_in(
                place,
                &name,
                &directory.join(&name),
                Some(membership),
            )?);
        }
        let mut cluster = Self { servers };
        cluster.form()?;
        Ok(cluster)
    }

    /// As [`Cluster::start`], where `routes(ports, n)` says at which ports server `n` finds the others that listen on
    /// `ports`; `hidden` from each other otherwise.
    fn start_routed(
        directory: &Path,
        hidden: bool,
        mut routes: impl FnMut(&[u16], usize) -> io::Result<Vec<u16>>,
    ) -> io::Result<Self> {
        let mut last = None;
        for attempt in 0..PORT_TRIES {
            let ports = (0..SERVERS).map(|_| free_port()).collect::<io::Result<Vec<u16>>>()?;
            let mut servers = Vec::new();
            for (n, port) in ports.iter().enumerate() {
                let membership = Membership {
                    port: *port,
                    routes: routes(&ports, n)?.iter().map(|p| format!("127.0.0.1:{p}")).collect(),
                    hidden,
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
