//! Real providers of bare metal on loopback: `sushy-tools`' emulator of Redfish, and OpenStack Ironic itself, standalone, without
//! authentication, with its fake hardware. Each has a directory and a port of its own, is killed by its own id when the handle is
//! dropped, and by the kernel when the thread that started it dies.
//!
//! `make deps` puts them below `~/.cache/windlass`; when one is missing, the error says so.

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::free_port;
use crate::s3_server::{Server, tools};
use crate::scratch::Scratch;

/// As `scripts/deps.sh` pins them.
const SUSHY_TOOLS: &str = "2.2.0";
const IRONIC: &str = "39.0.0";
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn program(venv: String, name: &str) -> io::Result<PathBuf> {
    let program = tools()?.join(venv).join("bin").join(name);
    if program.is_file() {
        return Ok(program);
    }
    let why = format!("no {}: run `make deps`, which installs it", program.display());
    Err(io::Error::new(io::ErrorKind::NotFound, why))
}

/// An emulator of Redfish controllers.
#[derive(Debug)]
pub struct Sushy {
    address: SocketAddr,
    _server: Server,
    _scratch: Scratch,
}

/// A system behind the emulator: its UUID, its interfaces, and whether it has a drive of 480 GB.
#[derive(Debug, Clone, Copy)]
pub struct FakeSystem<'a> {
    /// Its UUID.
    pub uuid: &'a str,
    /// How many interfaces.
    pub nics: usize,
    /// It tells of a drive; else it fails when it is asked for its storage, as the emulator does.
    pub has_drive: bool,
}

impl Sushy {
    /// Starts one with these systems.
    ///
    /// # Errors
    /// `NotFound` when it isn't installed; when it doesn't come up, with its log.
    pub fn start(systems: &[FakeSystem<'_>]) -> io::Result<Self> {
        let program = program(format!("sushy-tools-{SUSHY_TOOLS}"), "sushy-emulator")?;
        let scratch = Scratch::new("sushy")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let (mut fakes, mut storage, mut drives) = (String::new(), String::new(), String::new());
        for (n, s) in systems.iter().enumerate() {
            let nics: Vec<String> = (0..s.nics)
                .map(|i| format!("{{'mac': '00:5c:52:31:{n:02x}:{i:02x}', 'ip': '172.22.{n}.{i}'}}"))
                .collect();
            let _ = writeln!(
                fakes,
                "  {{'uuid': '{}', 'name': 'fake{n}', 'power_state': 'Off', 'nics': [{}]}},",
                s.uuid,
                nics.join(", ")
            );
            if s.has_drive {
                let _ = writeln!(
                    storage,
                    "  '{}': [{{'Id': '1', 'Name': 'Local', 'StorageControllers': [], 'Drives': ['d{n}']}}],",
                    s.uuid
                );
                let _ = writeln!(
                    drives,
                    "  ('{}', '1'): [{{'Id': 'd{n}', 'Name': 'Drive', 'CapacityBytes': 515396075520, 'Protocol': 'NVMe'}}],",
                    s.uuid
                );
            }
        }
        let text = format!(
            "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = {}\nSUSHY_EMULATOR_FAKE_DRIVER = True\n\
             SUSHY_EMULATOR_STATE_DIR = '{}'\n\
             SUSHY_EMULATOR_FAKE_SYSTEMS = [\n{fakes}]\nSUSHY_EMULATOR_STORAGE = {{\n{storage}}}\nSUSHY_EMULATOR_DRIVES = {{\n{drives}}}\n",
            address.port(),
            scratch.path().display(),
        );
        let config = scratch.join("sushy.conf");
        std::fs::write(&config, text)?;
        let config = config.display().to_string();
        let mut server = Server::start(&program, &["--config", &config], &[], &scratch.join("log"))?;
        server.wait(|| TcpStream::connect(address).is_ok())?;
        Ok(Self {
            address,
            _server: server,
            _scratch: scratch,
        })
    }
    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// An Ironic.
#[derive(Debug)]
pub struct Ironic {
    address: SocketAddr,
    _server: Server,
    _scratch: Scratch,
}

impl Ironic {
    /// Starts one without nodes.
    ///
    /// # Errors
    /// `NotFound` when it isn't installed; when it doesn't come up, with its log.
    pub fn start() -> io::Result<Self> {
        let all_in_one = program(format!("ironic-{IRONIC}"), "ironic")?;
        let make_schema = program(format!("ironic-{IRONIC}"), "ironic-dbsync")?;
        let scratch = Scratch::new("ironic")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let dir = scratch.path().display();
        let text = format!(
            "[DEFAULT]\nauth_strategy = noauth\nrpc_transport = none\nhost = localhost\nmy_ip = 127.0.0.1\nstate_path = {dir}/state\n\
             enabled_hardware_types = fake-hardware\nenabled_bios_interfaces = fake\nenabled_boot_interfaces = fake\n\
             enabled_console_interfaces = no-console\nenabled_deploy_interfaces = fake\n\
             enabled_firmware_interfaces = no-firmware\nenabled_inspect_interfaces = fake\n\
             enabled_management_interfaces = fake\nenabled_network_interfaces = noop\ndefault_network_interface = noop\n\
             enabled_power_interfaces = fake\nenabled_raid_interfaces = no-raid\nenabled_rescue_interfaces = no-rescue\n\
             enabled_storage_interfaces = noop\nenabled_vendor_interfaces = fake\n\
             [api]\nhost_ip = 127.0.0.1\nport = {port}\npublic_endpoint = http://{address}\n\
             [database]\nconnection = sqlite:///{dir}/ironic.sqlite\n\
             [conductor]\nautomated_clean = false\n[dhcp]\ndhcp_provider = none\n[sensor_data]\nsend_sensor_data = false\n",
            port = address.port(),
        );
        std::fs::create_dir_all(scratch.join("state"))?;
        let config = scratch.join("ironic.conf");
        std::fs::write(&config, text)?;
        let config = config.display().to_string();
        let made = Command::new(&make_schema)
            .args(["--config-file", &config, "create_schema"])
            .stdin(Stdio::null())
            .output()?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr);
            return Err(io::Error::other(format!("Ironic made no database: {said}")));
        }
        let mut server = Server::start(&all_in_one, &["--config-file", &config], &[], &scratch.join("log"))?;
        server.wait(|| TcpStream::connect(address).is_ok())?;
        let ironic = Self {
            address,
            _server: server,
            _scratch: scratch,
        };
        // its conductor is there a moment after its API
        for _ in 0..200 {
            let drivers = ironic.ask("GET", "/v1/drivers", "");
            if drivers.is_ok_and(|(status, body)| status == 200 && body.contains("fake-hardware")) {
                return Ok(ironic);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(io::Error::other("Ironic's conductor doesn't come up"))
    }
    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
    /// Asks its API: the status and the body.
    ///
    /// # Errors
    /// I/O errors; an answer that isn't HTTP.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAccept: application/json\r\n\
             X-OpenStack-Ironic-API-Version: 1.65\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no HTTP: {answer}")))?;
        Ok((status, answer.split_once("\r\n\r\n").map_or("", |(_, b)| b).to_owned()))
    }
    /// Makes a node of this JSON and brings it to `available`, with its power known: only such a node can be allocated.
    ///
    /// # Errors
    /// What Ironic says.
    pub fn node(&self, name: &str, json: &str) -> io::Result<()> {
        let wanted = |(status, body): (u16, String), from: u16| match status == from {
            true => Ok(body),
            false => Err(io::Error::other(format!("node {name}: {status} {body}"))),
        };
        wanted(self.ask("POST", "/v1/nodes", json)?, 201)?;
        for (verb, target, until) in [
            ("provision", "manage", "\"provision_state\": \"manageable\""),
            ("provision", "provide", "\"provision_state\": \"available\""),
            ("power", "power off", "\"power_state\": \"power off\""),
        ] {
            let asked = format!("{{\"target\": \"{target}\"}}");
            let path = format!("/v1/nodes/{name}/states/{verb}");
            wanted(self.ask("PUT", &path, &asked)?, 202)?;
            self.wait(&format!("/v1/nodes/{name}"), until)?;
        }
        Ok(())
    }
    fn wait(&self, path: &str, until: &str) -> io::Result<()> {
        for _ in 0..300 {
            let (_, body) = self.ask("GET", path, "")?;
            let free = body.contains("\"reservation\": null");
            if free && body.contains(until) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(io::Error::other(format!("{path} doesn't become {until}")))
    }
}
