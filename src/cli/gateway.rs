//! `windlass gateway token ...`: on the file, with or without a daemon, which reads it again by itself.

use std::process::ExitCode;

use serde_json::json;
use wire::ErrorBody;

use super::Context;
use super::args::{GatewayVerb, TokenVerb};
use super::table::Table;
use crate::gateway::tokens;

/// Runs one verb.
///
/// # Errors
/// What is wrong with the file.
pub fn run(context: &Context, verb: &GatewayVerb) -> Result<ExitCode, ErrorBody> {
    let GatewayVerb::Token(verb) = verb;
    let file = &context.loaded.config.gateway.tokens_file;
    match verb {
        TokenVerb::Add { name, role } => {
            let token = tokens::add(file, name.clone(), *role)?;
            context.output.remark("this is the only time that it is shown");
            let answer = json!({"name": name, "role": role, "token": token});
            context.answer(&answer, |_| format!("{token}\n"))
        }
        TokenVerb::Ls => {
            let rows = tokens::read(file)?;
            let known: Vec<_> = rows
                .iter()
                .map(|row| json!({"name": row.name, "role": row.role}))
                .collect();
            context.answer(&json!({ "tokens": known }), |_| {
                let mut table = Table::new().text("NAME").text("ROLE");
                rows.iter()
                    .for_each(|row| table.row([row.name.to_string(), row.role.to_string()]));
                table.render()
            })
        }
        TokenVerb::Rm { name } => {
            tokens::remove(file, name)?;
            context.answer(&json!({ "removed": name }), |_| {
                format!("{name} has no token any more\n")
            })
        }
    }
}
