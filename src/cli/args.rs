//! The command line: every verb, flag and help text, but for those of a concern, which stand in its own `args.rs`. Help pages, man
//! pages and completions are made from this.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Shown at the end of `windlass --help` and in the man page.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  internal: a fault of windlass itself
  2  invalid: the request can't be understood, or asks for something impossible
  3  not_found: the thing named doesn't exist
  4  conflict: the thing is in a state, or in someone else's hands, that forbids this now
  5  denied: no permission
  6  busy: too much is queued; try again
  7  deadline: no answer in time
  8  unavailable: something that is needed doesn't answer, or is full
  9  corrupt: stored bytes are not what was written
  130  left by Ctrl-C: the daemon goes on with the job; without a daemon it was stopped";

/// Workloads that start fast, in the right place, and come back fast.
///
/// windlass keeps disks of VMs in a chunk repository and puts them back in place by what differs. Verbs talk to the daemon
/// (`windlass serve`) when it runs, and else do their work in this process.
#[derive(Debug, Parser)]
#[command(name = "windlass", version, after_help = EXIT_CODES, max_term_width = 100, propagate_version = false)]
pub struct Cli {
    /// Flags of every verb.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags of every verb.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Flags of every verb")]
pub struct Global {
    /// Configuration file [env: WINDLASS_CONFIG] [default: /etc/windlass/windlass.toml for root, else
    /// ~/.config/windlass/windlass.toml; needn't exist]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where state is kept [env: WINDLASS_STATE_DIR] [default: /var/lib/windlass for root, else ~/.local/state/windlass]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// This host's id [env: WINDLASS_HOST_ID] [default: the host's name]
    #[arg(long, global = true, value_name = "ID")]
    pub host_id: Option<String>,
    /// The repository: a directory, file:///..., gs://..., az://... or memory://... [env: WINDLASS_REPO]
    /// [default: repo in the state directory]
    #[arg(long, global = true, value_name = "URL")]
    pub repo: Option<String>,
    /// The gateway of another host, such as http://10.0.0.7:7070: it does the work, and paths are its own
    #[arg(
        long,
        global = true,
        env = "WINDLASS_GATEWAY",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub gateway: Option<String>,
    /// The file with that gateway's token
    #[arg(
        long,
        global = true,
        env = "WINDLASS_GATEWAY_TOKEN_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub gateway_token_file: Option<PathBuf>,
    /// The NATS servers of a fleet, with commas between: nats://HOST:4222. Verbs then ask the host --host-id, wherever it
    /// is, and `serve` joins the fleet [env: WINDLASS_NATS]
    #[arg(long, global = true, value_name = "URLS")]
    pub nats: Option<String>,
    /// Print one JSON document on standard output, errors too
    #[arg(long, global = true, env = "WINDLASS_JSON", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub json: bool,
    /// Answer yes to every question
    #[arg(long, short = 'y', global = true, env = "WINDLASS_YES", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub yes: bool,
    /// No progress and no remarks
    #[arg(long, short = 'q', global = true, env = "WINDLASS_QUIET", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub quiet: bool,
    /// How progress is shown, on standard error
    #[arg(long, global = true, value_enum, default_value_t = ProgressStyle::Auto, value_name = "STYLE")]
    pub progress: ProgressStyle,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressStyle {
    /// A bar on a terminal, plain lines otherwise, nothing with --json
    #[default]
    Auto,
    /// A bar
    Bar,
    /// A line every few seconds
    Plain,
    /// The job as one JSON object a line
    Json,
    /// Nothing
    None,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Take, look at, restore and forget snapshots of VMs
    #[command(subcommand)]
    Snapshot(super::snapshot::args::SnapshotVerb),
    /// Put a VM's disks back in place (as `snapshot restore`)
    #[command(long_about = super::snapshot::args::RESTORE_LONG)]
    Restore(super::snapshot::args::RestoreArgs),
    /// Place many VMs in groups, each with a home rack
    #[command(subcommand)]
    Rack(super::rack::args::RackVerb),
    /// Find, claim and give back bare-metal machines for clusters
    #[command(subcommand)]
    Metal(super::metal::args::MetalVerb),
    /// Make and look at repositories
    #[command(subcommand)]
    Repo(super::snapshot::args::RepoVerb),
    /// Look at long work, follow it, stop it
    #[command(subcommand)]
    Jobs(JobsVerb),
    /// Look at the hosts, and tell them to take work or to leave it
    #[command(subcommand)]
    Hosts(HostsVerb),
    /// Run the daemon
    Serve,
    /// How the daemon and each of its concerns is
    Status,
    /// Say what is wrong in a configuration file and in the environment
    CheckConfig {
        /// The file; the one that would be read, when absent
        file: Option<PathBuf>,
    },
    /// Show the configuration
    #[command(subcommand)]
    Config(ConfigVerb),
    /// See it work on a real disk: no root, no server, nothing left behind
    Demo(crate::demo::Args),
    /// Send one request and print its answer
    Send(SendArgs),
    /// Print events as they happen
    Watch {
        /// Which events: a concern (`snapshot`), one kind (`snapshot.created`), or a subject
        filter: Option<String>,
        /// End after this many
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// The gateway's tokens
    #[command(subcommand)]
    Gateway(GatewayVerb),
    /// Who did what through this host, and who was refused
    Audit(AuditArgs),
    /// Print what a host, or a person, may do on the NATS servers: for their configuration
    #[command(long_about = PERMISSIONS_LONG)]
    NatsPermissions(PermissionsArgs),
    /// Print the wire as AsyncAPI 3 with JSON Schemas
    Schema,
    /// Print a script that completes windlass's verbs in a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write one page a verb into a directory
    Man {
        /// The directory
        dir: Option<PathBuf>,
    },
}

/// `windlass gateway ...`
#[derive(Debug, Subcommand)]
pub enum GatewayVerb {
    /// Tokens of people, each with a role, for callers of gateway.listen
    #[command(subcommand)]
    Token(TokenVerb),
}

/// `windlass gateway token ...`
#[derive(Debug, Subcommand)]
pub enum TokenVerb {
    /// Make a token for a person, and print it: only what it hashes to is kept
    Add {
        /// The person's name, which stands in the audit
        name: wire::PersonId,
        /// What they may do: viewer, operator or admin
        #[arg(long, value_name = "ROLE")]
        role: wire::Role,
    },
    /// Who has a token, and their roles
    Ls,
    /// Remove a person's token; it is worth nothing from then on
    Rm {
        /// The person's name
        name: wire::PersonId,
    },
}

/// `windlass audit`
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Only what was denied
    #[arg(long)]
    pub denied: bool,
    /// At most this many, newest last
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub count: u32,
    /// Go on with what happens now, on all hosts
    #[arg(long)]
    pub follow: bool,
}

const PERMISSIONS_LONG: &str = "\
Print what a host, or a person, may do on the NATS servers: for their configuration.

The servers then let it publish and hear what it needs and nothing else (docs/security.md). As `server-conf` it is a user for
`authorization.users`, or for the `users` of an account; as `jwt` it is a user of an account of a server in operator mode.";

/// `windlass nats-permissions`
#[derive(Debug, Args)]
pub struct PermissionsArgs {
    /// The host
    #[arg(
        long,
        value_name = "ID",
        required_unless_present = "person",
        conflicts_with = "person"
    )]
    pub host: Option<wire::HostId>,
    /// The person
    #[arg(long, value_name = "NAME", requires = "role")]
    pub person: Option<wire::PersonId>,
    /// What the person may do: viewer, operator or admin
    #[arg(long, value_name = "ROLE", requires = "person")]
    pub role: Option<wire::Role>,
    /// In which form
    #[arg(long, value_enum, default_value_t = PermissionsFormat::ServerConf, value_name = "FORM")]
    pub format: PermissionsFormat,
    /// The public nkey (U...) that they show, in place of a password; a signed JWT is for it
    #[arg(long, value_name = "KEY")]
    pub nkey: Option<String>,
    /// With jwt: the file with the seed of the account's key (SA...), which signs; without it the claims are printed
    #[arg(long, value_name = "FILE", requires = "nkey")]
    pub sign_with: Option<PathBuf>,
}

/// How permissions are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PermissionsFormat {
    /// A user in nats-server's configuration
    ServerConf,
    /// A user's JWT, or its claims
    Jwt,
}

/// `windlass config ...`
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Every key and its value
    Show {
        /// Also where each value comes from
        #[arg(long)]
        origin: bool,
    },
}

/// `windlass send`
#[derive(Debug, Args)]
pub struct SendArgs {
    /// A subject, or CONCERN.VERB for this host, such as `snapshot.ls`
    pub subject: String,
    /// What is sent.
    #[command(flatten)]
    pub what: RequestArgs,
}

/// A request as JSON, and how it is sent.
#[derive(Debug, Args)]
pub struct RequestArgs {
    /// The request; `-` reads it from standard input
    #[arg(default_value = "{}", value_name = "JSON")]
    pub request: String,
    /// How long to wait for the answer, in milliseconds
    #[arg(long, value_name = "MS")]
    pub timeout_ms: Option<u64>,
    /// The same id twice has one effect
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
}

/// `windlass hosts ...`
#[derive(Debug, Subcommand)]
pub enum HostsVerb {
    /// The hosts: where they stand, what they have, how they are
    Ls,
    /// One host, whole
    Show {
        /// Its id
        host: wire::HostId,
    },
    /// Give a host no jobs; it finishes what it has, or hands it back
    Drain {
        /// Its id
        host: wire::HostId,
    },
    /// Give a host no jobs but those that name it
    Cordon {
        /// Its id
        host: wire::HostId,
    },
    /// Give a host work again
    Uncordon {
        /// Its id
        host: wire::HostId,
    },
    /// Who belongs to the fleet
    Members,
    /// Let one host or person join the fleet, once: prints a token to hand over
    #[command(long_about = super::members::TOKEN_LONG)]
    Token(super::members::TokenArgs),
    /// Join the fleet by a token, in this state directory
    #[command(long_about = super::members::JOIN_LONG)]
    Join {
        /// The token; `-` reads it from standard input
        token: String,
    },
    /// Put a host or a person out of the fleet: nothing that it signs is heard any more
    Revoke(super::members::Named),
}

/// A job's state, as a flag names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum JobStateArg {
    /// Waiting for a worker
    Queued,
    /// A worker has it
    Running,
    /// Its worker left it; it waits for another
    Interrupted,
    /// Finished
    Done,
    /// Ended with an error
    Failed,
    /// Ended on request
    Cancelled,
    /// Set aside
    Dead,
}

impl From<JobStateArg> for wire::job::JobState {
    fn from(state: JobStateArg) -> Self {
        match state {
            JobStateArg::Queued => Self::Queued,
            JobStateArg::Running => Self::Running,
            JobStateArg::Interrupted => Self::Interrupted,
            JobStateArg::Done => Self::Done,
            JobStateArg::Failed => Self::Failed,
            JobStateArg::Cancelled => Self::Cancelled,
            JobStateArg::Dead => Self::Dead,
        }
    }
}

/// `windlass jobs ...`
#[derive(Debug, Subcommand)]
pub enum JobsVerb {
    /// Jobs, newest first
    Ls {
        /// At most this many
        #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: u32,
        /// Only those in this state
        #[arg(long, value_enum, value_name = "STATE")]
        state: Option<JobStateArg>,
    },
    /// Jobs that were set aside: their workers died or fell silent too often
    Dead {
        /// At most this many
        #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: u32,
    },
    /// Queue a job again that is dead, failed or cancelled
    Retry {
        /// Its id
        id: String,
    },
    /// One job, whole
    Show {
        /// Its id
        id: String,
    },
    /// Follow a job to its end
    Watch {
        /// Its id
        id: String,
    },
    /// Stop a job at its next safe point
    Cancel {
        /// Its id
        id: String,
    },
}
