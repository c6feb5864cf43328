//! The verbs of `windlass metal`.

use std::path::PathBuf;

use clap::Subcommand;

/// Shown with `select` and `claim`.
const ASK_LONG: &str = "\
The request is a file of TOML or JSON (`-` reads standard input), such as:

  name = \"shop\"
  location = \"fra\"
  headroom_percent = 20              # room to grow, on each node
  clean = true                       # wiped machines alone
  rack_hosts = true                  # become hosts of the rack scheduler

  [[roles]]
  role = \"control\"
  count = 3
  cores = 8
  memory_gib = 32
  per_domain_max = 1                 # each in a rack of its own

  [[roles]]
  role = \"worker\"
  count = 5
  cores = 32
  memory_gib = 256
  gpus = 2
  features = [\"sriov\"]
  domain = \"zone\"                    # spread over zones, as far as the policy says

`windlass schema` has all of it: ClusterAsk. Policies: docs/metal_broker.md.";

/// `windlass metal ...`
#[derive(Debug, Subcommand)]
pub enum MetalVerb {
    /// Say which machines a cluster would get; nothing is changed
    #[command(long_about = format!("Say which machines a cluster would get; nothing is changed.\n\n{ASK_LONG}"))]
    Select {
        /// Whose machines
        #[arg(long, env = "WINDLASS_TENANT", hide_env_values = true, value_name = "TENANT")]
        tenant: String,
        /// The request
        #[arg(value_name = "REQUEST")]
        file: PathBuf,
        /// A shipped policy: least_excess, spread, cheapest, keep_gpu_for_gpu. The tenant's own when absent
        #[arg(long, value_name = "NAME")]
        policy: Option<String>,
    },
    /// Say why these machines and no others, and what would have to change
    Explain {
        /// Whose machines
        #[arg(long, env = "WINDLASS_TENANT", hide_env_values = true, value_name = "TENANT")]
        tenant: String,
        /// The request
        #[arg(value_name = "REQUEST")]
        file: PathBuf,
        /// Why not this one
        #[arg(long, value_name = "ID")]
        machine: Option<String>,
        /// A shipped policy
        #[arg(long, value_name = "NAME")]
        policy: Option<String>,
    },
    /// Take machines for a cluster, all or none; they are leased until confirmed
    #[command(long_about = format!("Take machines for a cluster, all or none; they are leased until confirmed.\n\n{ASK_LONG}"))]
    Claim {
        /// Whose machines
        #[arg(long, env = "WINDLASS_TENANT", hide_env_values = true, value_name = "TENANT")]
        tenant: String,
        /// The request
        #[arg(value_name = "REQUEST")]
        file: PathBuf,
        /// A shipped policy
        #[arg(long, value_name = "NAME")]
        policy: Option<String>,
        /// The same id twice has one effect
        #[arg(long, value_name = "ID")]
        request_id: Option<String>,
    },
    /// Say of a cluster's machine that it came up, or that it did not
    Confirm {
        /// Whose cluster
        #[arg(long, env = "WINDLASS_TENANT", hide_env_values = true, value_name = "TENANT")]
        tenant: String,
        /// The cluster
        id: String,
        /// The machine
        machine: String,
        /// It did not come up: it is quarantined and replaced
        #[arg(long)]
        down: bool,
        /// The rack in which it found itself
        #[arg(long, value_name = "RACK")]
        rack: Option<String>,
        /// The zone in which it found itself
        #[arg(long, value_name = "ZONE")]
        zone: Option<String>,
    },
    /// Give a cluster's machines back
    Release {
        /// Whose cluster
        #[arg(long, env = "WINDLASS_TENANT", hide_env_values = true, value_name = "TENANT")]
        tenant: String,
        /// The cluster
        id: String,
    },
    /// Show a tenant's machines and where they come from
    Inventory {
        /// Whose
        #[arg(long, env = "WINDLASS_TENANT", hide_env_values = true, value_name = "TENANT")]
        tenant: String,
        /// Ask the providers first
        #[arg(long)]
        refresh: bool,
    },
    /// Keep a machine from being chosen, or let it be chosen again
    Quarantine {
        /// Whose machine
        #[arg(long, env = "WINDLASS_TENANT", hide_env_values = true, value_name = "TENANT")]
        tenant: String,
        /// The machine
        machine: String,
        /// Let it be chosen again
        #[arg(long)]
        lift: bool,
        /// Why, for people
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// Read, try out and set policies
    Policy {
        /// What to do
        #[command(subcommand)]
        verb: PolicyVerb,
    },
    /// Say what is expected to be asked for, and whether that counts
    Forecast {
        /// Whose
        #[arg(long, env = "WINDLASS_TENANT", hide_env_values = true, value_name = "TENANT")]
        tenant: String,
    },
    /// List a tenant's clusters
    Ls {
        /// Whose
        #[arg(long, env = "WINDLASS_TENANT", hide_env_values = true, value_name = "TENANT")]
        tenant: String,
    },
    /// Show a cluster and its machines
    Show {
        /// Whose cluster
        #[arg(long, env = "WINDLASS_TENANT", hide_env_values = true, value_name = "TENANT")]
        tenant: String,
        /// The cluster
        id: String,
    },
}

/// `windlass metal policy ...`
#[derive(Debug, Subcommand)]
pub enum PolicyVerb {
    /// Read a policy and say what it means; nothing is changed
    Check {
        /// The policy as TOML
        #[arg(value_name = "POLICY")]
        file: PathBuf,
    },
    /// Select by a policy that isn't the tenant's yet; nothing is changed
    Test {
        /// Whose machines
        #[arg(long, env = "WINDLASS_TENANT", hide_env_values = true, value_name = "TENANT")]
        tenant: String,
        /// The policy as TOML
        #[arg(value_name = "POLICY")]
        file: PathBuf,
        /// The request
        #[arg(value_name = "REQUEST")]
        request: PathBuf,
    },
    /// Make a policy the tenant's own
    Set {
        /// Whose
        #[arg(long, env = "WINDLASS_TENANT", hide_env_values = true, value_name = "TENANT")]
        tenant: String,
        /// The policy as TOML
        #[arg(value_name = "POLICY")]
        file: PathBuf,
    },
}
