//! Nouns whose verbs are made from the messages of their concern, for concerns that have no file of their own here.

use clap::{ArgMatches, Args, Command, CommandFactory, FromArgMatches};
use wire::catalog::{Endpoint, endpoints};

use super::args::{Cli, Global, RequestArgs, SendArgs, Verb};
use crate::concerns::{Row, TABLE};

/// The noun of a concern, with a verb for each of its requests.
pub fn of(row: &Row) -> Command {
    let verb = |e: Endpoint| {
        let sample = format!("Such as: windlass {} {} '{}'", row.noun, e.verb, e.samples.0);
        let verb = Command::new(e.verb).about(e.about).after_help(sample);
        RequestArgs::augment_args(verb)
    };
    let verbs = endpoints().into_iter().filter(|e| e.concern == row.name).map(verb);
    Command::new(row.noun).subcommand_required(true).subcommands(verbs)
}

/// What a verb of such a noun sends; `None` for every other command line.
pub fn sent(matches: &ArgMatches) -> Option<Result<Cli, clap::Error>> {
    let (noun, verbs) = matches.subcommand()?;
    let row = TABLE.iter().find(|row| row.noun == noun)?;
    if Cli::command().find_subcommand(noun).is_some() {
        return None;
    }
    let (verb, args) = verbs.subcommand()?;
    let cli = || {
        Ok(Cli {
            global: Global::from_arg_matches(matches)?,
            verb: Verb::Send(send(row, verb, args)?),
        })
    };
    Some(cli())
}

/// The `send` that a verb stands for.
pub(super) fn send(row: &Row, verb: &str, args: &ArgMatches) -> Result<SendArgs, clap::Error> {
    Ok(SendArgs {
        subject: format!("{}.{verb}", row.name),
        what: RequestArgs::from_arg_matches(args)?,
    })
}
