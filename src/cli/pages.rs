//! Shell completions and man pages, made from the command line itself.

use std::path::Path;
use std::process::ExitCode;

use wire::{Code, ErrorBody};

use super::output::Output;

/// `windlass completions`
///
/// # Errors
/// When standard output can't be written.
pub fn completions(output: Output, shell: clap_complete::Shell) -> Result<ExitCode, ErrorBody> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "windlass", &mut script);
    output.bytes(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// `windlass man [DIR]`: the main page on standard output, or a page for each verb in `dir`.
///
/// # Errors
/// `denied`, `not_found` or `unavailable` when a page can't be written; those before it stay.
pub fn man(output: Output, dir: Option<&Path>) -> Result<ExitCode, ErrorBody> {
    let Some(dir) = dir else {
        output.bytes(&page(&super::command()).map_err(|e| unwritable(Path::new("windlass.1"), &e))?)?;
        return Ok(ExitCode::SUCCESS);
    };
    for (name, text) in pages().map_err(|e| unwritable(dir, &e))? {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|e| unwritable(&path, &e))?;
        output.remark(&path.display().to_string());
    }
    Ok(ExitCode::SUCCESS)
}

fn unwritable(path: &Path, error: &std::io::Error) -> ErrorBody {
    let code = match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Code::NotFound,
        std::io::ErrorKind::PermissionDenied => Code::Denied,
        _ => Code::Unavailable,
    };
    ErrorBody::new(code, format!("man page {} can't be written: {error}", path.display()))
}

fn page(command: &clap::Command) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    Ok(text)
}

/// Every page: `windlass.1`, `windlass-snapshot.1`, `windlass-snapshot-create.1`, ...
pub fn pages() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    fn walk(name: &str, command: &clap::Command, found: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
        let titled = command.clone().name(name.to_owned()).display_name(name.to_owned());
        found.push((format!("{name}.1"), page(&titled)?));
        for sub in command
            .get_subcommands()
            .filter(|s| !s.is_hide_set() && s.get_name() != "help")
        {
            walk(&format!("{name}-{}", sub.get_name()), sub, found)?;
        }
        Ok(())
    }
    let mut command = super::command();
    command.build();
    let mut found = Vec::new();
    walk("windlass", &command, &mut found)?;
    Ok(found)
}
