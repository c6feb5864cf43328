//! Azurite, Microsoft's own emulator of Azure Blob Storage, on loopback: a directory, a port and a container of its own; killed
//! by its own id when the handle is dropped, and by the kernel when the thread that started it dies.
//!
//! `make deps` puts it below `~/.cache/windlass`; when it is missing, the error says so.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::{Windlass, free_port};
use crate::s3_server::{Server, tools};
use crate::scratch::Scratch;

/// As `scripts/deps.sh` pins it.
const VERSION: &str = "3.37.0";

/// What it runs on; pinned there, too.
const NODE_VERSION: &str = "22.20.0";

/// The container of each server.
pub const CONTAINER: &str = "windlass-tests";

// The account that every Azurite has, and its key: https://learn.microsoft.com/azure/storage/common/storage-use-azurite
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Makes the container: the one call that a store of objects has no use for. Signed as Azure's "Authorize with Shared Key"
/// says.
const MAKE_CONTAINER: &str = r"
const [port, account, key, container] = process.argv.slice(1);
const headers = { 'x-ms-date': new Date().toUTCString(), 'x-ms-version': '2021-08-06' };
const named = Object.entries(headers).map(([name, value]) => `${name}:${value}\n`).join('');
const text = `PUT${'\n'.repeat(12)}${named}/${account}/${account}/${container}\nrestype:container`;
const sum = require('crypto').createHmac('sha256', Buffer.from(key, 'base64')).update(text).digest('base64');
headers.Authorization = `SharedKey ${account}:${sum}`;
const path = `/${account}/${container}?restype=container`;
require('http').request({ host: '127.0.0.1', port, path, method: 'PUT', headers }, answer => {
  if (answer.statusCode !== 201) { console.error(`status ${answer.statusCode}`); process.exitCode = 1; }
  answer.pipe(process.stderr);
}).end();
";

/// An Azurite with an empty container.
#[derive(Debug)]
pub struct Azurite {
    address: SocketAddr,
    _server: Server,
    _scratch: Scratch,
}

impl Azurite {
    /// Starts one.
    ///
    /// # Errors
    /// `NotFound` when it isn't installed, with what installs it; when it doesn't come up, with its log.
    pub fn start() -> io::Result<Self> {
        let scratch = Scratch::new("azurite")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let node = tools()?.join(format!("node-{NODE_VERSION}/bin/node"));
        let program = tools()?.join(format!("azurite-{VERSION}/node_modules/.bin/azurite-blob"));
        if !program.is_file() {
            let why = format!("no {}: run `make deps`, which installs it", program.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        let (port, location) = (address.port().to_string(), scratch.join("data").display().to_string());
        let arguments = [
            program.to_str().unwrap_or_default(),
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            &port,
            "--location",
            &location,
            "--silent",
            "--disableTelemetry",
        ];
        let mut server = Server::start(&node, &arguments, &[], &scratch.join("log"))?;
        server.wait(|| TcpStream::connect(address).is_ok())?;
        make_container(&node, &port)?;
        Ok(Self {
            address,
            _server: server,
            _scratch: scratch,
        })
    }

    /// Variables by which the crate `object_store` finds it.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.to_owned()),
            ("AZURE_STORAGE_ACCOUNT_KEY", KEY.to_owned()),
            ("AZURE_STORAGE_ENDPOINT", format!("http://{}/{ACCOUNT}", self.address)),
            ("AZURE_ALLOW_HTTP", "true".to_owned()),
            ("NO_PROXY", "127.0.0.1".to_owned()),
        ]
    }

    /// A windlass whose repository is below `prefix` of the container.
    #[must_use]
    pub fn windlass(&self, windlass: Windlass, prefix: &str) -> Windlass {
        let found = self.environment().into_iter().fold(windlass, |w, (n, v)| w.env(n, v));
        found.env("WINDLASS_REPO", format!("az://{CONTAINER}/{prefix}"))
    }
}

fn make_container(node: &Path, port: &str) -> io::Result<()> {
    let done = Command::new(node)
        .args(["-e", MAKE_CONTAINER, "--", port, ACCOUNT, KEY, CONTAINER])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", node.display())))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(io::Error::other(format!("Azurite made no container: {said}")))
}
