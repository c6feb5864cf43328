//! Real S3 servers on loopback: [`Garage`] and [`Rclone`]. Each has a directory, ports and a bucket of its own; it is killed
//! by its own id when the handle is dropped, and by the kernel when the thread that started it dies.
//!
//! `make deps` puts both below `~/.cache/windlass`; a server that is missing is an error that says so.

use std::ffi::OsStr;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::Windlass;

mod garage;
mod rclone;

pub use garage::Garage;
pub use rclone::Rclone;

/// The bucket of each server.
pub const BUCKET: &str = "windlass-tests";
/// A server that isn't ready after so long is an error.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How a client reaches a server.
#[derive(Debug, Clone)]
pub struct Account {
    /// `http://127.0.0.1:port`, or `https://…`
    pub endpoint: String,
    /// Its region.
    pub region: &'static str,
    /// For `AWS_ACCESS_KEY_ID`.
    pub key_id: String,
    /// For `AWS_SECRET_ACCESS_KEY`.
    pub secret: String,
}

impl Account {
    /// The address that listens.
    pub fn address(&self) -> SocketAddr {
        let text = self.endpoint.split("://").nth(1).unwrap_or_default();
        text.parse().expect("endpoints here are scheme://address:port")
    }

    /// The same through another door, such as a proxy.
    #[must_use]
    pub fn through(&self, address: SocketAddr) -> Self {
        Self {
            endpoint: format!("http://{address}"),
            ..self.clone()
        }
    }

    /// The URL of a repository below `prefix` in the server's bucket.
    pub fn url(&self, prefix: &str) -> String {
        let (endpoint, region) = (&self.endpoint, self.region);
        format!("s3://{BUCKET}/{prefix}?endpoint={endpoint}&region={region}")
    }

    /// Variables that the AWS SDK reads: the keys, and nothing of this machine's own.
    pub fn environment(&self) -> [(&'static str, String); 6] {
        [
            ("AWS_ACCESS_KEY_ID", self.key_id.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret.clone()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
            ("NO_PROXY", "127.0.0.1".to_owned()),
        ]
    }

    /// A `credentials` file as the AWS SDK reads it, with these keys in its default profile.
    ///
    /// # Errors
    /// I/O errors of writing it.
    pub fn credentials_file(&self, path: &Path) -> io::Result<()> {
        let text = format!(
            "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            self.key_id, self.secret
        );
        std::fs::write(path, text)
    }

    /// A windlass that has these keys, and whose repository is below `prefix`.
    #[must_use]
    pub fn windlass(&self, windlass: Windlass, prefix: &str) -> Windlass {
        let with_keys = self.environment().into_iter().fold(windlass, |w, (n, v)| w.env(n, v));
        with_keys.env("WINDLASS_REPO", self.url(prefix))
    }
}

/// A server process.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `program` with its output in `log`.
    pub(crate) fn start<S: AsRef<OsStr>>(
        program: &Path,
        arguments: &[S],
        environment: &[(&str, &str)],
        log: &Path,
    ) -> io::Result<Self> {
        if !program.is_file() {
            let why = format!("no {}: run `make deps`, which installs it", program.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        let out = std::fs::File::create(log)?;
        // setpriv: a test that is killed has no time for its drops
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("setpriv (package util-linux): {e}")))?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// Waits until `ready` says so, or the server has ended.
    #[expect(clippy::disallowed_methods, reason = "a server is waited for in real time")]
    pub(crate) fn wait(&mut self, mut ready: impl FnMut() -> bool) -> io::Result<()> {
        let until = Instant::now() + READY_TIMEOUT;
        loop {
            if ready() {
                return Ok(());
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > until {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                return Err(io::Error::other(format!("the server isn't ready ({ended:?}):\n{said}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // both fail when it has ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where `make deps` puts the servers.
pub(crate) fn tools() -> io::Result<PathBuf> {
    let home = std::env::var_os("HOME").ok_or_else(|| io::Error::other("no HOME"))?;
    Ok(Path::new(&home).join(".cache/windlass"))
}

/// The status that a plain GET of `path` gets.
fn status(address: SocketAddr, path: &str) -> Option<u16> {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).ok()?;
    std::str::from_utf8(&head[9..]).ok()?.parse().ok()
}
