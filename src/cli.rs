//! The command line: parse, load the configuration, run the verb, print, exit with the code of its outcome.

mod args;
mod audit;
mod gateway;
mod hosts;
mod house;
mod job;
mod jobs;
mod members;
mod metal;
mod nouns;
mod output;
mod pages;
mod permissions;
mod progress;
mod rack;
mod settings;
mod show;
mod snapshot;
mod table;
mod units;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use config::{Flags, Loaded, Origin, Place, Surroundings};
use serde::Serialize;
use wire::{Code, ErrorBody};

use args::{Cli, ConfigVerb, Global, Verb};
use output::Output;

use crate::client::{Client, no_daemon};
use crate::gateway::client::Remote;

/// How long tasks that are still running may take once the verb is done.
const RUNTIME_STOP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

/// Exit code of a verb that its caller left by Ctrl-C: 128 + SIGINT, as shells count it.
const EXIT_LEFT: u8 = 130;

/// What a verb works with.
pub struct Context {
    /// Where the answer goes.
    pub output: Output,
    /// Nothing is asked.
    pub yes: bool,
    /// The configuration.
    pub loaded: Loaded,
    /// The gateway at an address that was named, which then does all the work.
    pub remote: Option<Remote>,
    /// Where relative paths begin.
    pub working_dir: PathBuf,
}

impl Context {
    /// The repository to name in a request: the one of `--repo`, and the one of `WINDLASS_REPO` where a daemon, which has its
    /// own default, is asked. Without a daemon the variable *is* the default of the house in this process.
    pub fn repo(&self, client: &Client) -> Option<String> {
        named_repo(&self.loaded, client.is_daemon())
    }
    /// Reaches the concerns.
    ///
    /// # Errors
    /// As [`Context::reach`] and [`Client::here`].
    pub async fn connect(&self) -> Result<Client, ErrorBody> {
        match self.reach().await? {
            Some(client) => Ok(client),
            None => Client::here(&self.loaded.config).await,
        }
    }
    /// Reaches a daemon.
    ///
    /// # Errors
    /// `unavailable` when none runs; as [`Context::reach`].
    pub async fn daemon(&self) -> Result<Client, ErrorBody> {
        let client = self.reach().await?;
        client.ok_or_else(|| no_daemon(&self.loaded.config))
    }
    /// Reaches a daemon at the gateway or over the servers that the caller named, over this host's socket, or over the servers of
    /// the configuration; `None` when there is none.
    ///
    /// # Errors
    /// As [`Client::remote`], [`Client::daemon`] and [`Client::lattice`].
    async fn reach(&self) -> Result<Option<Client>, ErrorBody> {
        let config = &self.loaded.config;
        if let Some(remote) = &self.remote {
            return Client::remote(remote, config).await.map(Some);
        }
        let is_fleet = config.bus.mode == config::BusMode::Nats;
        let said = match self.loaded.origin("nats.servers") {
            Some(Origin::Said(Place::Flag(_) | Place::Env(_))) => is_fleet,
            _ => false,
        };
        if !said && let Some(client) = Client::daemon(config).await? {
            return Ok(Some(client));
        }
        match is_fleet {
            true => Client::lattice(config).await.map(Some),
            false => Ok(None),
        }
    }
    /// The end of a verb that its caller left by Ctrl-C; `why` tells how the job ended, when it did.
    pub fn left(&self, why: Option<&ErrorBody>) -> ExitCode {
        if let Some(error) = why {
            self.output.failure(error);
        }
        ExitCode::from(EXIT_LEFT)
    }
    /// Prints the answer; success.
    ///
    /// # Errors
    /// When standard output can't be written.
    pub fn answer<T: Serialize>(&self, value: &T, human: impl FnOnce(&T) -> String) -> Result<ExitCode, ErrorBody> {
        self.output.answer(value, human)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The command line as clap knows it, with what THE TABLE says of each noun. A concern without a file here gets its verbs from
/// its messages: `windlass NOUN VERB [JSON]` is another spelling of `windlass send CONCERN.VERB [JSON]`.
pub fn command() -> clap::Command {
    crate::concerns::TABLE.iter().fold(Cli::command(), |command, row| {
        let told = |noun: clap::Command| noun.about(row.about).after_help(format!("More: {}", row.page()));
        match command.find_subcommand(row.noun) {
            Some(_) => command.mut_subcommand(row.noun, told),
            None => command.subcommand(told(nouns::of(row))),
        }
    })
}

/// Runs a command line to its exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match command()
        .try_get_matches_from(&args)
        .and_then(|m| nouns::sent(&m).unwrap_or_else(|| Cli::from_arg_matches(&m)))
    {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &args),
    };
    let output = Output::new(&cli.global);
    match run(cli, output) {
        Ok(code) => code,
        Err(error) => output.failure(&error),
    }
}

/// Help and version are answers; anything else is `invalid`, as JSON where that was asked for.
fn usage(error: &clap::Error, args: &[OsString]) -> ExitCode {
    let json = args.iter().any(|a| a == "--json");
    if !error.use_stderr() || !json {
        let _nobody_reads = error.print();
        return ExitCode::from(if error.use_stderr() {
            Code::Invalid.exit_code()
        } else {
            0
        });
    }
    let output = Output::new(&Global {
        json,
        ..Global::default()
    });
    output.failure(
        &ErrorBody::new(
            Code::Invalid,
            error.to_string().trim_start_matches("error: ").trim_end(),
        )
        .hint("windlass --help"),
    )
}

fn run(cli: Cli, output: Output) -> Result<ExitCode, ErrorBody> {
    let around = surroundings()?;
    let chosen = config::choose_file(cli.global.config.as_deref(), &around);
    match &cli.verb {
        Verb::Completions { shell } => return pages::completions(output, *shell),
        Verb::Man { dir } => return pages::man(output, dir.as_deref()),
        Verb::CheckConfig { file } => return settings::check(output, file.as_deref(), chosen, &around),
        Verb::NatsPermissions(args) => return permissions::print(output, args),
        Verb::Demo(args) => return crate::demo::run(args).map(|()| ExitCode::SUCCESS),
        _ => {}
    }
    let loaded = load(&cli.global, chosen.clone(), &around)?;
    let serving = matches!(cli.verb, Verb::Serve);
    let level_said = loaded.origin("log.level").is_some_and(|o| *o != Origin::Default);
    let log = &loaded.config.log;
    let level = if serving || level_said { &log.level } else { "warn" };
    let level = crate::log::to_stderr(level, log.format);
    if !serving {
        loaded
            .warnings
            .iter()
            .for_each(|w| output.remark(&format!("warning: {w}")));
    }
    // before there is a second thread
    let hardening = match serving {
        true => crate::hardening::apply(&loaded.config, chosen.as_ref().map(|(path, _)| path.as_path())),
        false => None,
    };
    let read = read_again(cli.global.clone(), chosen, around.clone());
    let context = Context {
        output,
        yes: cli.global.yes,
        remote: remote(&cli.global, &around)?,
        loaded,
        working_dir: around.working_dir.clone(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| ErrorBody::new(Code::Unavailable, format!("the system gives no threads: {e}")))?;
    // the trace of whoever calls is gone on with; else it begins here
    let trace = runtime::next_step(around.var("TRACEPARENT"), &runtime::SystemClock::new());
    let command = async {
        match cli.verb {
            Verb::Serve => crate::serve::run(&context.loaded, level, read, hardening)
                .await
                .map(|()| ExitCode::SUCCESS),
            other => runtime::Traced::command(trace).run(verb(&context, other)).await,
        }
    };
    let result = runtime.block_on(command);
    runtime.shutdown_timeout(RUNTIME_STOP_TIMEOUT);
    result
}

async fn verb(context: &Context, verb: Verb) -> Result<ExitCode, ErrorBody> {
    match verb {
        Verb::Snapshot(verb) => snapshot::run(context, &verb).await,
        Verb::Restore(args) => snapshot::restore::run(context, &args).await,
        Verb::Repo(verb) => snapshot::repo::run(context, &verb).await,
        Verb::Rack(verb) => rack::run(context, &verb).await,
        Verb::Metal(verb) => metal::run(context, &verb).await,
        Verb::Jobs(verb) => jobs::run(context, &verb).await,
        Verb::Hosts(verb) => hosts::run(context, &verb).await,
        Verb::Status => house::status(context).await,
        Verb::Config(ConfigVerb::Show { origin }) => settings::show(context, origin),
        Verb::Send(args) => house::send(context, &args).await,
        Verb::Watch { filter, count } => house::watch(context, filter.as_deref(), count).await,
        Verb::Schema => house::schema(context),
        Verb::Audit(args) => audit::run(context, &args).await,
        Verb::Gateway(verb) => gateway::run(context, &verb),
        Verb::Completions { .. }
        | Verb::Man { .. }
        | Verb::CheckConfig { .. }
        | Verb::NatsPermissions(_)
        | Verb::Demo(_)
        | Verb::Serve => {
            unreachable!("these ran before, each in a way of its own")
        }
    }
}

fn load(global: &Global, chosen: Option<(PathBuf, bool)>, around: &Surroundings) -> Result<Loaded, ErrorBody> {
    let file = match chosen {
        Some((path, must_exist)) => config::read_file(&path, must_exist).map_err(|e| ErrorBody::from(&e))?,
        None => None,
    };
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let flags = Flags {
        state_dir: global.state_dir.as_ref().map(text),
        host_id: global.host_id.clone(),
        repo: global.repo.clone(),
        nats: global.nats.clone(),
    };
    config::load(file.as_ref(), around, &flags).map_err(|e| ErrorBody::from(&e))
}

/// Reads the configuration as at the start. A file that was there must still be there: without it a reload would be all defaults.
fn read_again(global: Global, chosen: Option<(PathBuf, bool)>, around: Surroundings) -> crate::reload::Read {
    let chosen = chosen.map(|(path, must_exist)| {
        let was_there = path.exists();
        (path, must_exist || was_there)
    });
    Box::new(move || load(&global, chosen.clone(), &around))
}

/// The gateway of `--gateway`, and the token in its file.
fn remote(global: &Global, around: &Surroundings) -> Result<Option<Remote>, ErrorBody> {
    let Some(url) = global.gateway.as_deref().filter(|url| !url.is_empty()) else {
        return Ok(None);
    };
    let file = global
        .gateway_token_file
        .as_ref()
        .map(|file| around.working_dir.join(file));
    Remote::new(url, file.as_deref()).map(Some)
}

fn named_repo(loaded: &Loaded, to_daemon: bool) -> Option<String> {
    let named = match loaded.origin("repo.url")? {
        Origin::Said(Place::Flag(_)) => true,
        Origin::Said(Place::Env(_)) => to_daemon,
        _ => false,
    };
    named.then(|| loaded.config.repo.url.clone())
}

fn surroundings() -> Result<Surroundings, ErrorBody> {
    let working_dir = std::env::current_dir()
        .map_err(|e| ErrorBody::new(Code::NotFound, format!("the working directory can't be found: {e}")))?;
    let env = std::env::vars_os()
        .filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    // Linux tells its name here; elsewhere the default id is `localhost`
    let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .unwrap_or_default()
        .trim()
        .to_owned();
    Ok(Surroundings {
        env,
        is_root: rustix::process::geteuid().is_root(),
        host_name,
        working_dir,
    })
}
