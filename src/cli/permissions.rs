//! `windlass nats-permissions`: what a host, or a person, may do on the NATS servers.

use std::process::ExitCode;

use nats::{Grants, Permissions};
use secret::Reference;
use serde_json::json;
use state::{Key, Prefix};
use wire::catalog::endpoints;
use wire::{Code, ConcernName, ErrorBody, HostId};

use super::args::{PermissionsArgs, PermissionsFormat};
use super::output::Output;
use crate::concerns;

/// Prints them.
///
/// # Errors
/// `invalid` for a key that isn't one; what the file of the account's seed says.
pub fn print(output: Output, args: &PermissionsArgs) -> Result<ExitCode, ErrorBody> {
    let (permissions, name) = match (&args.host, &args.person, args.role) {
        (Some(host), ..) => (Permissions::of_host(host, &grants(host)?)?, host.to_string()),
        (None, Some(person), Some(role)) => {
            let joins = Prefix::below(&Key::new(trust::JOINS)?);
            let permissions = Permissions::of_person(person, role, &endpoints(), &[joins])?;
            (permissions, person.to_string())
        }
        _ => return Err(ErrorBody::new(Code::Invalid, "name a host, or a person and a role")),
    };
    if let Some(nkey) = &args.nkey {
        nats::check_user_key(nkey)?;
    }
    match (args.format, &args.nkey, &args.sign_with) {
        (PermissionsFormat::ServerConf, nkey, _) if output.json => {
            output
                .document(&json!({"user": permissions.server_conf(nkey.as_deref()), "claims": permissions.claims()}))?;
        }
        (PermissionsFormat::ServerConf, nkey, _) => {
            output.text(&permissions.server_conf(nkey.as_deref()))?;
            if nkey.is_none() {
                let variable = permissions.password_variable();
                output.remark(&format!(
                    "the server takes the password from the variable {variable} of its environment"
                ));
            }
        }
        (PermissionsFormat::Jwt, Some(nkey), Some(seed)) => {
            output.text(&(permissions.signed(&name, nkey, &Reference::File(seed.clone()))? + "\n"))?;
        }
        (PermissionsFormat::Jwt, ..) => output.document(&json!({"name": name, "nats": permissions.claims()}))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What THE TABLE and the runtime say that a host needs.
fn grants(host: &HostId) -> Result<Grants, ErrorBody> {
    let concern = |row: &concerns::Row| {
        ConcernName::new(row.name).map_err(|e| ErrorBody::new(Code::Internal, format!("a row of THE TABLE: {e}")))
    };
    let mut shared_keys = runtime::shared_keys()?;
    for below in trust::SHARED {
        shared_keys.push(Prefix::below(&Key::new(below)?));
    }
    for below in concerns::TABLE.iter().filter_map(|row| row.shared_state) {
        shared_keys.push(Prefix::below(&Key::new(below)?));
    }
    Ok(Grants {
        concerns: concerns::TABLE.iter().map(concern).collect::<Result<_, _>>()?,
        endpoints: endpoints(),
        own_keys: runtime::own_keys(host)?,
        shared_keys,
    })
}
