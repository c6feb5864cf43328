//! A network on one machine: namespaces with own addresses, joined by a bridge, each with a cable that can be pulled.
//!
//! ```text
//! namespace wl<pid>n1 (10.77.0.1) --cable--+
//! namespace wl<pid>n2 (10.77.0.2) --cable--+-- bridge in wl<pid>n0
//! ```
//!
//! Nothing of it shows in the machine's own network. A [`Network`] that is dropped takes its namespaces away by their names, also
//! when the test panics; those of a test that was killed go when the next one begins. Needed: root and the package `iproute2`.

use std::ffi::OsStr;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where `ip` keeps the names.
const NAMES: &str = "/run/netns";
const PREFIX: &str = "wl";

static NEXT: AtomicU32 = AtomicU32::new(0);

fn ip(words: &[&str]) -> io::Result<()> {
    let output = Command::new("/usr/sbin/ip")
        .args(words)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| io::Error::new(e.kind(), format!("ip (package iproute2): {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("ip {}: {said} (as root?)", words.join(" "))))
}

/// A namespace; gone with the last handle to it.
#[derive(Debug)]
struct Named(String);

impl Named {
    fn new() -> io::Result<Self> {
        let name = format!("{PREFIX}{}n{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        ip(&["netns", "add", &name])?;
        let named = Self(name);
        ip(&["-n", &named.0, "link", "set", "lo", "up"])?;
        Ok(named)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // one that is gone can't be deleted
        let _ = ip(&["netns", "del", &self.0]);
    }
}

/// The namespace of one host.
#[derive(Debug, Clone)]
pub struct Namespace {
    named: Arc<Named>,
    hub: Arc<Named>,
    cable: String,
    address: Ipv4Addr,
}

impl Namespace {
    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A command that runs in it; the process that is started is the program itself.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("/usr/sbin/ip");
        command.args(["netns", "exec", &self.named.0]).arg(program);
        command
    }

    /// Pulls its cable: nothing passes, and nobody is told.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn cut(&self) -> io::Result<()> {
        ip(&["-n", &self.hub.0, "link", "set", &self.cable, "down"])
    }

    /// Puts it back.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn heal(&self) -> io::Result<()> {
        ip(&["-n", &self.hub.0, "link", "set", &self.cable, "up"])
    }

    /// What an HTTP server in it answers to a GET of `path` at `port` of its loopback: status line, head and body.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn http_get(&self, port: u16, path: &str) -> io::Result<String> {
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET {path} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && timeout 2 cat <&3"
        );
        let output = self
            .command("bash")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .output()?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

/// Namespaces that see each other.
#[derive(Debug)]
pub struct Network {
    /// The hosts, from 10.77.0.1 on.
    pub hosts: Vec<Namespace>,
}

impl Network {
    /// A network of `count` hosts.
    ///
    /// # Errors
    /// What `ip` says: it wants root.
    pub fn start(count: u8) -> io::Result<Self> {
        remove_left_behind();
        let hub = Arc::new(Named::new()?);
        ip(&["-n", &hub.0, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &hub.0, "link", "set", "br0", "up"])?;
        let mut hosts = Vec::new();
        for n in 1..=count {
            let named = Arc::new(Named::new()?);
            let (cable, address) = (format!("c{n}"), Ipv4Addr::new(10, 77, 0, n));
            let ends = ["type", "veth", "peer", "name", "eth0", "netns", &named.0];
            ip(&[&["-n", &hub.0, "link", "add", &cable][..], &ends].concat())?;
            ip(&["-n", &hub.0, "link", "set", &cable, "master", "br0", "up"])?;
            ip(&[
                "-n",
                &named.0,
                "address",
                "add",
                &format!("{address}/24"),
                "dev",
                "eth0",
            ])?;
            ip(&["-n", &named.0, "link", "set", "eth0", "up"])?;
            hosts.push(Namespace {
                named,
                hub: hub.clone(),
                cable,
                address,
            });
        }
        Ok(Self { hosts })
    }
}

/// Namespaces of tests that were killed.
fn remove_left_behind() {
    for entry in std::fs::read_dir(NAMES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let made_by = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('n'));
        let Some(pid) = made_by.and_then(|(pid, _)| pid.parse::<u32>().ok()) else {
            continue;
        };
        if !Path::new(&format!("/proc/{pid}")).exists() {
            // another test may be quicker
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reaches(from: &Namespace, to: &Namespace, port: u16) -> bool {
        let script = format!("exec 3<>/dev/tcp/{}/{port}", to.address());
        let mut command = from.command("timeout");
        command.args(["1", "bash", "-c", &script]).stderr(Stdio::null());
        command.status().unwrap().success()
    }

    #[test]
    fn hosts_see_each_other_until_a_cable_is_pulled_and_nothing_is_left() {
        let network = Network::start(3).unwrap();
        let [a, b, c] = &network.hosts[..] else {
            panic!("{network:?}")
        };
        // whatever answers on a port there: the test is about the way
        let serve = "import http.server; http.server.HTTPServer(('0.0.0.0', 80), http.server.SimpleHTTPRequestHandler).serve_forever()";
        let mut serving = b
            .command("python3")
            .args(["-c", serve])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let came_up = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            reaches(a, b, 80)
        });
        let answered = b.http_get(80, "/").unwrap_or_default();
        b.cut().unwrap();
        let cut = !reaches(a, b, 80) && !reaches(c, b, 80);
        b.heal().unwrap();
        let healed = reaches(c, b, 80);
        serving.kill().unwrap();
        serving.wait().unwrap();
        assert!(came_up && cut && healed, "{came_up} {cut} {healed}");
        assert!(answered.starts_with("HTTP/1.0 200"), "{answered}");
        let names: Vec<String> = network.hosts.iter().map(|host| host.named.0.clone()).collect();
        drop(network);
        assert!(names.iter().all(|name| !Path::new(NAMES).join(name).exists()));
    }
}
