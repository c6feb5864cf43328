//! The verbs of `windlass rack`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Shown with `place` and `plan`.
const ASK_LONG: &str = "\
The request is a file of TOML or JSON (`-` reads standard input), or flags. Such as:

  tenant = \"ads\"
  mode = \"best_effort\"               # or all_or_nothing, the default

  [[vms]]
  count = 90
  vcpus = 4
  memory_mib = 8192

  [divide]
  groups = 9                         # or group_vms = 10, or replicas = 3

  [inside]
  per_host_max = 2

  [[relations]]                      # without any, all groups are apart
  kind = \"apart\"                     # or together, near_row, near_zone
  strength = \"hard\"                  # or preferred

`windlass schema` has all of it: RackAsk.";

/// What is wanted, by file or by flags.
#[derive(Debug, Clone, Args)]
pub struct AskArgs {
    /// The request
    #[arg(value_name = "FILE", required_unless_present = "vms", conflicts_with_all = ["vms", "vcpus", "memory_mib", "disk_gib", "gpus", "nics"])]
    pub file: Option<PathBuf>,
    /// So many VMs
    #[arg(long, value_name = "N")]
    pub vms: Option<u64>,
    /// Virtual CPUs of each
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub vcpus: u64,
    /// Memory of each in MiB
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub memory_mib: u64,
    /// Disk of each in GiB
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub disk_gib: u64,
    /// GPUs of each
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub gpus: u64,
    /// Network interfaces of each
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub nics: u64,
    /// Into so many groups
    #[arg(long, value_name = "N", conflicts_with_all = ["group_vms", "replicas", "file"])]
    pub groups: Option<u64>,
    /// Into groups of at most so many
    #[arg(long, value_name = "N", conflicts_with_all = ["replicas", "file"])]
    pub group_vms: Option<u64>,
    /// Into as many groups as the application keeps copies
    #[arg(long, value_name = "N", conflicts_with = "file")]
    pub replicas: Option<u64>,
    /// At most so many of a group on one host
    #[arg(long, value_name = "N", conflicts_with = "file")]
    pub per_host_max: Option<u64>,
    /// Place what fits
    #[arg(long, conflicts_with = "file")]
    pub best_effort: bool,
    /// Who pays
    #[arg(long, value_name = "TENANT", conflicts_with = "file")]
    pub tenant: Option<String>,
}

/// How a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum State {
    /// Takes VMs
    Up,
    /// Takes nothing new; its VMs stay
    Cordoned,
    /// Takes nothing new; its VMs are moving
    Draining,
    /// Gone
    Lost,
}

/// Why something is evacuated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Why {
    /// It is being emptied
    Draining,
    /// It has gone
    Lost,
}

/// Whose form topology takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TopologyFormat {
    /// Lines for `net.topology.table.file.name`: VM and /zone/row/rack
    Hadoop,
    /// Lines of VM and `broker.rack=`
    Kafka,
    /// Labels of nodes, as YAML
    Kubernetes,
}

/// `windlass rack ...`
#[derive(Debug, Subcommand)]
pub enum RackVerb {
    /// Place VMs in groups, each with a home rack, and commit to it
    #[command(long_about = format!("Place VMs in groups, each with a home rack, and commit to it.\n\n{ASK_LONG}"))]
    Place {
        #[command(flatten)]
        ask: AskArgs,
        /// The same id twice has one effect
        #[arg(long, value_name = "ID")]
        request_id: Option<String>,
    },
    /// Say where VMs would go; nothing is changed
    #[command(long_about = format!("Say where VMs would go; nothing is changed.\n\n{ASK_LONG}"))]
    Plan {
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Say why groups are where they are, or why a request doesn't fit
    Explain {
        /// A placement
        #[arg(long, value_name = "ID", conflicts_with = "file")]
        id: Option<String>,
        /// A request's file
        #[arg(value_name = "FILE", required_unless_present = "id")]
        file: Option<PathBuf>,
    },
    /// Say how many VMs of a kind fit, and what runs out first
    Whatif {
        /// Virtual CPUs of each
        #[arg(long, value_name = "N")]
        vcpus: u64,
        /// Memory of each in MiB
        #[arg(long, value_name = "N")]
        memory_mib: u64,
        /// Disk of each in GiB
        #[arg(long, value_name = "N", default_value_t = 0)]
        disk_gib: u64,
        /// GPUs of each
        #[arg(long, value_name = "N", default_value_t = 0)]
        gpus: u64,
        /// In groups of so many
        #[arg(long, value_name = "N", default_value_t = 1)]
        group_vms: u64,
        /// At most so many of a group on one host
        #[arg(long, value_name = "N")]
        per_host_max: Option<u64>,
    },
    /// List placements, oldest first
    Ls {
        /// Only this tenant's
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Show one placement
    Show {
        /// Its id or a unique beginning
        id: String,
    },
    /// Add VMs to a placement's groups, in their home racks
    Grow {
        /// Its id or a unique beginning
        id: String,
        /// So many VMs; the smallest groups get them first
        #[arg(long, value_name = "N")]
        vms: u64,
        /// Virtual CPUs of each
        #[arg(long, value_name = "N")]
        vcpus: u64,
        /// Memory of each in MiB
        #[arg(long, value_name = "N")]
        memory_mib: u64,
        /// Disk of each in GiB
        #[arg(long, value_name = "N", default_value_t = 0)]
        disk_gib: u64,
        /// GPUs of each
        #[arg(long, value_name = "N", default_value_t = 0)]
        gpus: u64,
        /// Network interfaces of each
        #[arg(long, value_name = "N", default_value_t = 0)]
        nics: u64,
        /// Only to this group; once for each
        #[arg(long = "group", value_name = "NAME")]
        groups: Vec<String>,
        /// The same id twice has one effect
        #[arg(long, value_name = "ID")]
        request_id: Option<String>,
    },
    /// Take VMs from a placement
    Shrink {
        /// Its id or a unique beginning
        id: String,
        /// So many: from the largest groups, the youngest first
        #[arg(long, value_name = "N", required_unless_present = "vms", conflicts_with = "vms")]
        count: Option<u64>,
        /// This VM; once for each
        #[arg(long = "vm", value_name = "NAME")]
        vms: Vec<String>,
    },
    /// Give a placement back
    Release {
        /// Its id or a unique beginning
        id: String,
    },
    /// Move VMs off a host or a rack that is drained or lost
    Evacuate {
        /// The host: its VMs move within their home racks
        #[arg(long, value_name = "ID", required_unless_present = "rack", conflicts_with = "rack")]
        host: Option<String>,
        /// The rack: its groups get another home
        #[arg(long, value_name = "ID")]
        rack: Option<String>,
        /// Why
        #[arg(long, value_enum, default_value_t = Why::Draining, value_name = "WHY")]
        why: Why,
        /// With a host: a group that has no room left in its home rack moves as a whole
        #[arg(long)]
        move_groups: bool,
    },
    /// Show racks, and what is booked on them
    Inventory {
        /// One rack, with its hosts
        #[arg(long, value_name = "ID")]
        rack: Option<String>,
    },
    /// Add racks and hosts to the inventory, or change those that are there
    Load {
        /// The inventory, as TOML or JSON; `-` reads standard input
        file: PathBuf,
        /// Hosts of its racks that are not in it go
        #[arg(long)]
        replace: bool,
    },
    /// Set a host's state
    Mark {
        /// The host
        host: String,
        /// Its state
        #[arg(value_enum)]
        state: State,
    },
    /// Set or show what a tenant may have booked at once
    Quota {
        /// The tenant
        tenant: String,
        /// Virtual CPUs; 0 bounds nothing
        #[arg(long, value_name = "N")]
        vcpus: Option<u64>,
        /// Memory in MiB; 0 bounds nothing
        #[arg(long, value_name = "N")]
        memory_mib: Option<u64>,
        /// Disk in GiB; 0 bounds nothing
        #[arg(long, value_name = "N")]
        disk_gib: Option<u64>,
        /// GPUs; 0 bounds nothing
        #[arg(long, value_name = "N")]
        gpus: Option<u64>,
        /// Network interfaces; 0 bounds nothing
        #[arg(long, value_name = "N")]
        nics: Option<u64>,
    },
    /// Print a placement's failure domains as an application reads them
    Topology {
        /// Its id or a unique beginning
        id: String,
        /// For whom
        #[arg(long, value_enum, value_name = "FORMAT")]
        format: TopologyFormat,
    },
    /// Draw racks, hosts, how full they are, and a placement's groups in colours
    Map {
        /// The placement whose groups are coloured
        #[arg(long, value_name = "ID")]
        placement: Option<String>,
        /// As a picture: SVG on standard output
        #[arg(long)]
        svg: bool,
    },
}
