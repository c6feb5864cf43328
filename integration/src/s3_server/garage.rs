//! Garage: a server with checksums, multipart uploads and durable data.

use std::io;
use std::path::PathBuf;

use super::{Account, BUCKET, Server, status, tools};
use crate::process::free_port;
use crate::scratch::Scratch;

/// As `scripts/deps.sh` pins it.
const VERSION: &str = "2.5.0";
/// A key in Garage's form; what it opens lives as long as a test.
const KEY_ID: &str = "GK000000000000000000000001";
const SECRET: &str = "0000000000000000000000000000000000000000000000000000000000000001";

/// A Garage of one node.
#[derive(Debug)]
pub struct Garage {
    /// How to reach it.
    pub account: Account,
    server: Option<Server>,
    config: PathBuf,
    scratch: Scratch,
}

impl Garage {
    /// Starts one with an empty bucket.
    ///
    /// # Errors
    /// `NotFound` when it isn't installed, with what installs it; when it doesn't come up, with its log.
    pub fn start() -> io::Result<Self> {
        let scratch = Scratch::new("garage")?;
        let (rpc, s3) = (free_port()?, free_port()?);
        let dir = scratch.path().display();
        let text = format!(
            "metadata_dir = \"{dir}/meta\"\ndata_dir = \"{dir}/data\"\ndb_engine = \"sqlite\"\nreplication_factor = 1\n\
             rpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\n\
             rpc_secret = \"{SECRET}\"\nallow_world_readable_secrets = true\n\
             [s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"127.0.0.1:{s3}\"\nroot_domain = \".localhost\"\n"
        );
        let config = scratch.join("garage.toml");
        std::fs::write(&config, text)?;
        let account = Account {
            endpoint: format!("http://127.0.0.1:{s3}"),
            region: "garage",
            key_id: KEY_ID.to_owned(),
            secret: SECRET.to_owned(),
        };
        let mut garage = Self {
            account,
            server: None,
            config,
            scratch,
        };
        garage.resume()?;
        Ok(garage)
    }

    /// Stops it at once, as a power cut would; what it has stays on its disk.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Starts it again on what it has, at the same address.
    ///
    /// # Errors
    /// As [`Garage::start`].
    pub fn resume(&mut self) -> io::Result<()> {
        let program = tools()?.join(format!("garage-{VERSION}/bin/garage"));
        let config = self.config.to_string_lossy().into_owned();
        let environment = [
            ("GARAGE_DEFAULT_ACCESS_KEY", KEY_ID),
            ("GARAGE_DEFAULT_SECRET_KEY", SECRET),
            ("GARAGE_DEFAULT_BUCKET", BUCKET),
            ("RUST_LOG", "garage=info"),
        ];
        let arguments = ["-c", &config, "server", "--single-node", "--default-bucket"];
        let mut server = Server::start(&program, &arguments, &environment, &self.scratch.join("log"))?;
        let address = self.account.address();
        // its door opens after the bucket was made; without a key it answers 403
        server.wait(|| status(address, &format!("/{BUCKET}")).is_some_and(|s| s == 403))?;
        self.server = Some(server);
        Ok(())
    }
}
