//! `rclone serve s3`: a server that checks no checksums.
//!
//! What it serves here is its store in memory, by `--vfs-cache-mode minimal`: an object is written under another name, which no
//! listing shows, and renamed when it is whole. (With `off`, its default, readers find objects of this store in parts while
//! they are written.) While a key's body is replaced by another, readers may still find a mixture: a repository never does that.

use std::io;
use std::net::TcpStream;
use std::path::Path;

use super::{Account, BUCKET, Server, tools};
use crate::process::free_port;
use crate::scratch::Scratch;

/// As `scripts/deps.sh` pins it.
const VERSION: &str = "1.75.2";
const KEY_ID: &str = "WINDLASSTESTS0000001";
/// A planted one: [`crate::secrets`].
const SECRET: &str = "planted-5ecret-rclone-000000000000000001";

/// An `rclone serve s3`.
#[derive(Debug)]
pub struct Rclone {
    /// How to reach it.
    pub account: Account,
    _server: Server,
    _scratch: Scratch,
}

impl Rclone {
    /// Starts one with an empty bucket.
    ///
    /// # Errors
    /// `NotFound` when it isn't installed, with what installs it; when it doesn't come up, with its log.
    pub fn start() -> io::Result<Self> {
        Self::with("http", &[])
    }

    /// As [`Rclone::start`] with TLS, by a certificate for 127.0.0.1 and its key in PEM.
    ///
    /// # Errors
    /// As [`Rclone::start`].
    pub fn start_tls(certificate: &Path, key: &Path) -> io::Result<Self> {
        let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
        Self::with("https", &["--cert", &certificate, "--key", &key])
    }

    fn with(scheme: &str, more: &[&str]) -> io::Result<Self> {
        let scratch = Scratch::new("rclone")?;
        let account = Account {
            endpoint: format!("{scheme}://127.0.0.1:{}", free_port()?),
            region: "us-east-1",
            key_id: KEY_ID.to_owned(),
            secret: SECRET.to_owned(),
        };
        let address = account.address().to_string();
        let keys = format!("{KEY_ID},{SECRET}");
        let program = tools()?.join(format!("rclone-{VERSION}/bin/rclone"));
        let config = scratch.join("rclone.conf").display().to_string();
        let cache = scratch.join("cache").display().to_string();
        let text = format!("[memory]\ntype = memory\n[all]\ntype = combine\nupstreams = {BUCKET}=memory:bucket\n");
        std::fs::write(&config, text)?;
        let arguments = [
            "serve",
            "s3",
            "--config",
            &config,
            "--addr",
            &address,
            "--auth-key",
            &keys,
            "--vfs-cache-mode",
            "minimal",
            "--cache-dir",
            &cache,
            "all:",
        ];
        let arguments = [&arguments, more].concat();
        let mut server = Server::start(&program, &arguments, &[], &scratch.join("log"))?;
        server.wait(|| TcpStream::connect(account.address()).is_ok())?;
        Ok(Self {
            account,
            _server: server,
            _scratch: scratch,
        })
    }
}
