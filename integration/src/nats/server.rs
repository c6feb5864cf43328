//! One nats-server.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{installed, monitor};
use crate::netns::Namespace;
use crate::process::free_port;

/// How long a server may take until it serves.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to end after SIGTERM before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
/// Another process may take a port between our look and the server's start.
const PORT_TRIES: usize = 5;

#[expect(
    clippy::disallowed_methods,
    reason = "a helper that waits for a process measures real time"
)]
fn now() -> Instant {
    Instant::now()
}

/// What stands in a server's configuration beside its name, ports and store.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// Lines for the top of the configuration, such as `max_payload` or `authorization`.
    pub lines: String,
    /// No JetStream.
    pub core_only: bool,
    /// JetStream answers for a write before it is synced to the disk: what we advise against.
    pub lazy_sync: bool,
}

/// What a member of a cluster knows of it.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    /// Its own port for routes.
    pub(crate) port: u16,
    /// Where it finds the others.
    pub(crate) routes: Vec<String>,
    /// The others hear of no address of it but those of their own `routes`.
    pub(crate) hidden: bool,
}

/// A nats-server. Dropping it kills it, by its own id.
#[derive(Debug)]
pub struct Server {
    name: String,
    directory: PathBuf,
    options: ServerOptions,
    port: u16,
    monitor_port: u16,
    membership: Option<Membership>,
    /// Where it runs; on the machine's own loopback without one.
    place: Option<Namespace>,
    child: Option<Child>,
}

impl Server {
    /// Starts one with JetStream in `directory`, and waits until it serves.
    ///
    /// # Errors
    /// `NotFound` when it isn't installed; `TimedOut` with its log when it doesn't serve.
    pub fn start(directory: &Path) -> io::Result<Self> {
        Self::start_with(directory, ServerOptions::default())
    }

    /// As [`Server::start`].
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with(directory: &Path, options: ServerOptions) -> io::Result<Self> {
        let mut last = None;
        for _ in 0..PORT_TRIES {
            let mut server = Self::prepared("n1", directory, options.clone(), None)?;
            match server.restart() {
                Ok(()) => return Ok(server),
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => last = Some(e),
                Err(e) => return Err(e),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::other("no free port")))
    }

    /// As [`Server::start`], in a namespace: reached at its address.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_in(place: &Namespace, directory: &Path) -> io::Result<Self> {
        let mut server = Self::prepared_in(place, "n1", directory, None)?;
        server.restart()?;
        Ok(server)
    }

    /// One in a namespace that isn't started yet.
    pub(crate) fn prepared_in(
        place: &Namespace,
        name: &str,
        directory: &Path,
        membership: Option<Membership>,
    ) -> io::Result<Self> {
        let mut server = Self::prepared(name, directory, ServerOptions::default(), membership)?;
        server.place = Some(place.clone());
        fs::write(server.configuration(), server.configuration_text())?;
        Ok(server)
    }

    fn address(&self) -> Ipv4Addr {
        self.place.as_ref().map_or(Ipv4Addr::LOCALHOST, Namespace::address)
    }

    /// One that isn't started yet.
    pub(crate) fn prepared(
        name: &str,
        directory: &Path,
        options: ServerOptions,
        membership: Option<Membership>,
    ) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let server = Self {
            name: name.to_owned(),
            directory: directory.to_owned(),
            options,
            port: free_port()?,
            monitor_port: free_port()?,
            membership,
            place: None,
            child: None,
        };
        fs::write(server.configuration(), server.configuration_text())?;
        Ok(server)
    }

    fn configuration(&self) -> PathBuf {
        self.directory.join("nats-server.conf")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("nats-server.log")
    }

    /// Where its JetStream keeps what it has.
    pub fn store(&self) -> PathBuf {
        self.directory.join("store")
    }

    fn configuration_text(&self) -> String {
        let mut text = format!(
            "server_name: {}\nlisten: \"{}:{}\"\nhttp: \"127.0.0.1:{}\"\n{}\n",
            self.name,
            self.address(),
            self.port,
            self.monitor_port,
            self.options.lines
        );
        if !self.options.core_only {
            // a cluster's write is on three disks' way; a lone server's is durable only when it is synced
            let sync = match (&self.membership, self.options.lazy_sync) {
                (None, false) => "sync_interval: always",
                _ => "",
            };
            text += &format!(
                "jetstream {{ store_dir: \"{}\", max_mem: 64MB, max_file: 2GB, {sync} }}\n",
                self.store().display()
            );
        }
        if let Some(Membership { port, routes, hidden }) = &self.membership {
            let routes: Vec<String> = routes.iter().map(|r| format!("\"nats://{r}\"")).collect();
            text += &format!(
                "cluster {{ name: windlass, listen: \"{}:{port}\", no_advertise: true, {} routes: [{}] }}\n",
                self.address(),
                // what it tells of itself leads nowhere
                if *hidden { "advertise: \"127.0.0.1:1\"," } else { "" },
                routes.join(", ")
            );
        }
        text
    }

    /// Starts it without waiting; it has the ports and the store that it had before.
    ///
    /// # Errors
    /// `NotFound` when it isn't installed.
    pub fn spawn(&mut self) -> io::Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.log())?;
        let program = installed("nats-server", "WINDLASS_NATS_SERVER")?;
        let mut command = match &self.place {
            Some(place) => place.command(program),
            None => Command::new(program),
        };
        let child = command
            .arg("-c")
            .arg(self.configuration())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Starts it (again) and waits until it serves.
    ///
    /// # Errors
    /// `AddrInUse` when somebody has one of its ports; `TimedOut` with its log when it doesn't serve.
    pub fn restart(&mut self) -> io::Result<()> {
        self.spawn()?;
        self.wait_healthy()
    }

    pub(crate) fn wait_healthy(&mut self) -> io::Result<()> {
        let until = now() + START_TIMEOUT;
        loop {
            if self.is_healthy() && self.is_running()? {
                return Ok(());
            }
            let ended = !self.is_running()?;
            if ended || now() >= until {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                let kind = match log.contains("address already in use") {
                    true => io::ErrorKind::AddrInUse,
                    false => io::ErrorKind::TimedOut,
                };
                self.kill()?;
                return Err(io::Error::new(kind, format!("nats-server doesn't serve:\n{log}")));
            }
            std::thread::sleep(POLL);
        }
    }

    fn is_healthy(&self) -> bool {
        monitor::is_healthy(self.place.as_ref(), self.monitor_port)
    }

    fn is_running(&mut self) -> io::Result<bool> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?.is_none()),
            None => Ok(false),
        }
    }

    /// Where clients reach it.
    pub fn url(&self) -> String {
        format!("nats://{}:{}", self.address(), self.port)
    }

    /// The port that clients reach it at.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What it says at a path of its monitoring port, such as `/jsz?accounts=true&streams=true`.
    ///
    /// # Errors
    /// When it doesn't answer, or with something that is no JSON.
    pub fn monitor(&self, path: &str) -> io::Result<Value> {
        monitor::get(self.place.as_ref(), self.monitor_port, path)?
            .ok_or_else(|| io::Error::other(format!("{path}: no JSON")))
    }

    /// SIGKILL, now.
    ///
    /// # Errors
    /// I/O errors of killing and waiting.
    pub fn kill(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// I/O errors of the signal and of waiting.
    pub fn stop(&mut self) -> io::Result<()> {
        self.signal(rustix::process::Signal::TERM)?;
        let until = now() + STOP_TIMEOUT;
        while self.is_running()? && now() < until {
            std::thread::sleep(POLL);
        }
        self.kill()
    }

    /// Stops it in its tracks (SIGSTOP): its connections stay, and nobody answers.
    ///
    /// # Errors
    /// I/O errors of the signal.
    pub fn freeze(&self) -> io::Result<()> {
        self.signal(rustix::process::Signal::STOP)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// I/O errors of the signal.
    pub fn thaw(&self) -> io::Result<()> {
        self.signal(rustix::process::Signal::CONT)
    }

    fn signal(&self, signal: rustix::process::Signal) -> io::Result<()> {
        let id = self.id().and_then(|id| i32::try_from(id).ok());
        match id.and_then(rustix::process::Pid::from_raw) {
            Some(id) => rustix::process::kill_process(id, signal).map_err(Into::into),
            None => Ok(()),
        }
    }

    /// Removes its store; to be called while it doesn't run.
    ///
    /// # Errors
    /// I/O errors of removing.
    pub fn lose_store(&self) -> io::Result<()> {
        assert!(self.child.is_none(), "the server still runs");
        match fs::remove_dir_all(self.store()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // a server that can't be killed has ended
        let _ = self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_server_serves_ends_comes_back_and_leaves_nothing() {
        let scratch = Scratch::new("nats").unwrap();
        let mut server = Server::start(&scratch.join("n1")).unwrap();
        let first = server.id().unwrap();
        assert_eq!(
            server.monitor("/varz").unwrap()["jetstream"]["config"]["sync_always"],
            true
        );
        server.stop().unwrap();
        server.restart().unwrap();
        server.freeze().unwrap();
        server.thaw().unwrap();
        assert_ne!(server.id(), Some(first));
        let second = server.id().unwrap();
        drop(server);
        for id in [first, second] {
            assert!(!Path::new(&format!("/proc/{id}")).exists());
        }
    }

    #[test]
    fn one_that_can_not_serve_says_why() {
        let scratch = Scratch::new("nats").unwrap();
        let options = ServerOptions {
            lines: "no_such_key: {".into(),
            ..ServerOptions::default()
        };
        let e = Server::start_with(&scratch.join("n1"), options).unwrap_err();
        assert!(e.to_string().contains("Parse error"), "{e}");
    }
}
