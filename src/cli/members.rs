//! `windlass hosts members|token|join|revoke`: who belongs to the fleet.

use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::{Deserialize, Serialize};
use trust::Token;
use wire::members::{HostMembers, HostMembership, HostRevoke, HostToken};
use wire::{Code, ErrorBody, HostId, PersonId, Sender};

use super::Context;
use super::table::{Table, one_line};
use super::units::count;
use crate::backends;
use crate::client::{Client, no_daemon};

/// The longest token that is read from standard input, in bytes.
const TOKEN_BYTES_MAX: u64 = 1_024;

/// Long help of `windlass hosts token`.
pub const TOKEN_LONG: &str = "\
Let one host or person join the fleet, once: prints a token to hand over.

The token is a secret until it is used: whoever has it may join as the one that it names. It is made here and granted by the \
daemon of this host, which has to be one that may admit (the first host of a fleet may). Hand it over by a way that you trust, \
and give it to `windlass hosts join` there.";

/// Long help of `windlass hosts join`.
pub const JOIN_LONG: &str = "\
Join the fleet by a token, in this state directory.

Makes this place's key (identity.key, mode 0600), asks the members, and checks their answer against the token. A host starts its \
daemon then; a person gives commands with the same state directory and --nats. The same command again goes on where it was \
interrupted.";

/// Who is meant.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Named {
    /// The host's id
    pub host: Option<HostId>,
    /// A person's name, in place of a host's id
    #[arg(long, value_name = "NAME")]
    pub person: Option<PersonId>,
}

impl Named {
    fn member(&self) -> Result<Sender, ErrorBody> {
        match (&self.host, &self.person) {
            (Some(host), None) => Ok(Sender::Host(host.clone())),
            (None, Some(person)) => Ok(Sender::Person(person.clone())),
            _ => Err(ErrorBody::new(Code::Invalid, "name a host, or a person with --person")),
        }
    }
}

/// `windlass hosts token`
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Whom it lets in.
    #[command(flatten)]
    pub named: Named,
    /// How long it is good for, in seconds
    #[arg(long, default_value_t = 3_600, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=trust::TOKEN_S_MAX))]
    pub valid_s: u64,
    /// The host may let others in, too, and put them out
    #[arg(long)]
    pub may_admit: bool,
    /// It is a member already and lost its key: the new one takes its place
    #[arg(long)]
    pub replace: bool,
    /// What a person may do
    #[arg(long, value_name = "ROLE", value_parser = ["viewer", "operator", "admin"], requires = "person")]
    pub role: Option<String>,
}

/// What `windlass hosts token --json` prints.
#[derive(Debug, Serialize)]
struct Made<'a> {
    token: &'a str,
    member: Sender,
    issuer: Sender,
    expires_at: String,
}

/// What `windlass hosts join --json` prints.
#[derive(Debug, Serialize, Deserialize)]
struct Joined {
    member: Sender,
    epoch: u64,
}

/// `windlass hosts members`
///
/// # Errors
/// `unavailable` when no daemon runs; `conflict` for a host that stands alone.
pub async fn list(context: &Context) -> Result<ExitCode, ErrorBody> {
    let client = context.daemon().await?;
    let reply = client.call(&HostMembers {}).await?;
    context.answer(&reply, listing)
}

fn listing(membership: &HostMembership) -> String {
    let mut table = Table::new()
        .text("MEMBER")
        .text("STANDING")
        .text("ROLE")
        .number("EPOCH")
        .text("BY")
        .text("KEY");
    for m in &membership.members {
        let standing = match (m.revoked, m.may_admit) {
            (true, _) => "revoked",
            (false, true) => "may admit",
            (false, false) => "member",
        };
        table.row([
            m.member.to_string(),
            standing.into(),
            m.role.as_deref().map_or_else(|| "-".into(), one_line),
            count(m.epoch),
            m.by.as_ref().map_or_else(|| "-".into(), ToString::to_string),
            m.key.chars().take(16).collect(),
        ]);
    }
    table.render()
}

/// `windlass hosts token`: the secret is made here, and what the daemon grants is its public half. Only a gateway's word on whose
/// key grants it is good enough, for the token names that key to the joiner.
///
/// # Errors
/// `unavailable` when no daemon runs here; `conflict` for a host that stands alone; as the daemon answers.
pub async fn token(context: &Context, args: &TokenArgs) -> Result<ExitCode, ErrorBody> {
    let config = &context.loaded.config;
    let client = match &context.remote {
        Some(remote) => Client::remote(remote, config).await?,
        None => Client::daemon(config).await?.ok_or_else(|| {
            no_daemon(config).hint("a token is made on a host of the fleet, with the state directory of its daemon")
        })?,
    };
    let Some(issuer_key) = client.member_key() else {
        let message = format!(
            "{} stands alone: there is no fleet to join; no token was made",
            client.host()
        );
        return Err(ErrorBody::new(Code::Conflict, message).hint("docs/lattice.md tells how hosts meet"));
    };
    let issuer: trust::PublicKey = issuer_key
        .parse()
        .map_err(|_| ErrorBody::new(Code::Internal, "the daemon's key can't be read; no token was made"))?;
    let key = trust::make_token()?;
    let member = args.named.member()?;
    let role = match &member {
        Sender::Person(_) => Some(args.role.clone().unwrap_or_else(|| "operator".into())),
        Sender::Host(_) => None,
    };
    let request = HostToken {
        member: member.clone(),
        token_key: key.public().to_string(),
        valid_s: args.valid_s,
        may_admit: args.may_admit,
        replace: args.replace,
        role,
    };
    let granted = client.call(&request).await?;
    if granted.issuer_key != issuer_key {
        let message = "another host than this one granted the token; it was thrown away";
        return Err(ErrorBody::new(Code::Denied, message)
            .hint("whoever runs the NATS servers answers for hosts: docs/security.md"));
    }
    let token = Token { member, key, issuer };
    let text = token.text();
    let made = Made {
        token: &text,
        member: granted.member,
        issuer: granted.issuer,
        expires_at: granted.expires_at,
    };
    context.output.remark(&format!(
        "good once, until {}, for {}; a secret until then. There: windlass hosts join TOKEN",
        super::units::time(&made.expires_at),
        made.member
    ));
    context.answer(&made, |made| format!("{}\n", made.token))
}

/// `windlass hosts join`
///
/// # Errors
/// `invalid` for what is no token, or without servers; `conflict` for another host's token, or while the daemon runs; as
/// [`trust::join()`].
pub async fn join(context: &Context, text: &str) -> Result<ExitCode, ErrorBody> {
    let config = &context.loaded.config;
    let token: Token = read(text)?.parse().map_err(|_| {
        ErrorBody::new(Code::Invalid, "that is no token of windlass; nothing was changed")
            .hint("windlass hosts token, on a member")
    })?;
    if config.bus.mode != config::BusMode::Nats {
        return Err(
            ErrorBody::new(Code::Invalid, "no NATS servers are named; nothing was changed")
                .hint("--nats nats://HOST:4222, as the members have it"),
        );
    }
    if let Sender::Host(host) = &token.member
        && *host != config.host_id
    {
        let message = format!(
            "the token is for host '{host}', and this one's id is '{}'; nothing was changed",
            config.host_id
        );
        return Err(
            ErrorBody::new(Code::Conflict, message).hint(format!("--host-id {host}, or host_id in its configuration"))
        );
    }
    if Client::daemon(config).await?.is_some() {
        let message = "the daemon of this state directory runs; nothing was changed";
        return Err(ErrorBody::new(Code::Conflict, message).hint("stop it, join, and start it again"));
    }
    let clock: Arc<dyn runtime::Clock> = Arc::new(runtime::SystemClock::new());
    let joined = backends::lattice::join(config, &clock, token).await?;
    let joined = Joined {
        member: joined.me,
        epoch: joined.epoch,
    };
    context.answer(&joined, |joined| {
        format!("{} is a member of the fleet\n", joined.member)
    })
}

fn read(text: &str) -> Result<String, ErrorBody> {
    if text != "-" {
        return Ok(text.to_owned());
    }
    let mut read = String::new();
    let from = std::io::stdin().lock().take(TOKEN_BYTES_MAX).read_to_string(&mut read);
    from.map_err(|e| ErrorBody::new(Code::Invalid, format!("standard input can't be read: {e}")))?;
    Ok(read)
}

/// `windlass hosts revoke`
///
/// # Errors
/// `unavailable` when no daemon runs; as it answers.
pub async fn revoke(context: &Context, named: &Named) -> Result<ExitCode, ErrorBody> {
    let member = named.member()?;
    let client = context.daemon().await?;
    let revoked = client.call(&HostRevoke { member }).await?;
    if !revoked.admitted.is_empty() {
        let names: Vec<String> = revoked.admitted.iter().map(ToString::to_string).collect();
        context.output.remark(&format!(
            "it had let in {}: they stay members; revoke those that you don't know",
            names.join(", ")
        ));
    }
    context.answer(&revoked, |revoked| {
        format!("{} was put out of the fleet\n", revoked.member)
    })
}
