//! `windlass check-config` and `windlass config show`.

use std::path::Path;
use std::process::ExitCode;

use config::{Flags, Surroundings};
use serde::Serialize;
use wire::{Code, ErrorBody};

use super::Context;
use super::output::Output;
use super::table::Table;

/// What `check-config --json` prints when all is well.
#[derive(Serialize)]
struct Checked {
    file: Option<String>,
    findings: Vec<config::Finding>,
}

/// `windlass check-config`: the file, the environment, and the two together.
///
/// # Errors
/// `invalid` with every finding; `not_found` and `denied` for the file.
pub fn check(
    output: Output,
    file: Option<&Path>,
    chosen: Option<(std::path::PathBuf, bool)>,
    around: &Surroundings,
) -> Result<ExitCode, ErrorBody> {
    let chosen = match file {
        Some(path) => Some((around.working_dir.join(path), true)),
        None => chosen,
    };
    let text = match &chosen {
        Some((path, must_exist)) => config::read_file(path, *must_exist).map_err(|e| ErrorBody::from(&e))?,
        None => None,
    };
    let mut findings = text.as_ref().map(config::check_text).unwrap_or_default();
    findings.extend(config::check_environment(around));
    if findings.is_empty() {
        // what only shows when all layers are put together
        if let Err(error) = config::load(text.as_ref(), around, &Flags::default()) {
            findings.extend(error.faults().iter().cloned());
        }
    }
    if !findings.is_empty() {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        return Err(ErrorBody::new(Code::Invalid, lines.join("\n"))
            .hint("windlass config show --origin lists every key; config/windlass.toml explains them"));
    }
    let file = text.map(|t| t.path.display().to_string());
    output.answer(&Checked { file, findings }, |checked| match &checked.file {
        Some(file) => format!("{file}: fine\n"),
        None => "no configuration file; the environment is fine\n".into(),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `windlass config show`
///
/// # Errors
/// When standard output can't be written.
pub fn show(context: &Context, origin: bool) -> Result<ExitCode, ErrorBody> {
    let values = context.loaded.shown();
    if context.output.json {
        let entry = |s: &config::Shown| {
            let value = if origin {
                serde_json::json!({"value": s.value, "origin": s.origin.to_string()})
            } else {
                serde_json::json!(s.value)
            };
            (s.key.to_owned(), value)
        };
        let map: serde_json::Map<String, serde_json::Value> = values.iter().map(entry).collect();
        context.output.document(&map)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new().text("KEY").text("VALUE");
    if origin {
        table = table.text("ORIGIN");
    }
    for s in &values {
        let mut row = vec![s.key.to_owned(), s.value.to_string()];
        row.extend(origin.then(|| s.origin.to_string()));
        table.row(row);
    }
    context.output.text(&table.render())?;
    Ok(ExitCode::SUCCESS)
}
