//! What reaches the terminal: the one place that writes to standard output and standard error.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;
use wire::ErrorBody;

use super::args::{Global, ProgressStyle};

/// How to speak to whoever called.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// One JSON document on standard output.
    pub json: bool,
    /// No remarks, no progress.
    pub quiet: bool,
    /// Progress as it was asked for.
    pub progress: ProgressStyle,
    /// Standard error is a terminal.
    pub stderr_is_terminal: bool,
    /// Colours on standard error.
    pub colour: bool,
}

impl Output {
    /// As the flags say and the terminal is; `NO_COLOR` (<https://no-color.org>) turns colours off.
    pub fn new(global: &Global) -> Self {
        let stderr_is_terminal = std::io::stderr().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self {
            json: global.json,
            quiet: global.quiet,
            progress: global.progress,
            stderr_is_terminal,
            colour: stderr_is_terminal && !no_colour,
        }
    }
    /// The way progress is shown: never [`ProgressStyle::Auto`].
    pub fn progress_style(&self) -> ProgressStyle {
        match self.progress {
            _ if self.quiet => ProgressStyle::None,
            ProgressStyle::Auto if self.json => ProgressStyle::None,
            ProgressStyle::Auto if self.stderr_is_terminal => ProgressStyle::Bar,
            ProgressStyle::Auto => ProgressStyle::Plain,
            other => other,
        }
    }
    /// The answer: `value` as JSON with `--json`, else the text that `human` makes of it.
    ///
    /// # Errors
    /// When standard output can't be written (a closed pipe ends the program in silence instead).
    pub fn answer<T: Serialize>(&self, value: &T, human: impl FnOnce(&T) -> String) -> Result<(), ErrorBody> {
        if self.json {
            self.document(value)
        } else {
            self.text(&human(value))
        }
    }
    /// One JSON document.
    ///
    /// # Errors
    /// As [`Output::answer`].
    pub fn document(&self, value: &impl Serialize) -> Result<(), ErrorBody> {
        let text = serde_json::to_string_pretty(value).map_err(|e| {
            ErrorBody::new(
                wire::Code::Internal,
                format!("the answer can't be written as JSON: {e}"),
            )
        })?;
        self.text(&(text + "\n"))
    }
    /// One JSON object on one line, at once.
    ///
    /// # Errors
    /// As [`Output::answer`].
    pub fn json_line(&self, value: &impl Serialize) -> Result<(), ErrorBody> {
        let text = serde_json::to_string(value).map_err(|e| {
            ErrorBody::new(
                wire::Code::Internal,
                format!("the answer can't be written as JSON: {e}"),
            )
        })?;
        self.text(&(text + "\n"))
    }
    /// Text as it is.
    ///
    /// # Errors
    /// As [`Output::answer`].
    pub fn text(&self, text: &str) -> Result<(), ErrorBody> {
        self.bytes(text.as_bytes())
    }
    /// Bytes as they are.
    ///
    /// # Errors
    /// As [`Output::answer`].
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), ErrorBody> {
        let mut out = std::io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            // the reader has seen enough, as in `windlass snapshot ls | head`
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(e) => Err(ErrorBody::new(
                wire::Code::Unavailable,
                format!("standard output can't be written: {e}"),
            )),
        }
    }
    /// A line beside the answer, on standard error.
    pub fn remark(&self, line: &str) {
        if !self.quiet {
            self.stderr(&format!("{line}\n"));
        }
    }
    /// Text on standard error; nobody reads it if that can't be written.
    pub fn stderr(&self, text: &str) {
        let mut err = std::io::stderr().lock();
        let _nobody_reads = err.write_all(text.as_bytes()).and_then(|()| err.flush());
    }
    /// The end of an unsuccessful run: the error where the caller looks for it, and its exit code.
    pub fn failure(&self, error: &ErrorBody) -> ExitCode {
        if self.json {
            let _nobody_reads = self.document(&serde_json::json!({ "error": error }));
        } else {
            self.stderr(&error_text(error, self.colour));
        }
        ExitCode::from(error.code.exit_code())
    }
}

/// An error for people.
pub fn error_text(error: &ErrorBody, colour: bool) -> String {
    let (on, off) = if colour {
        ("\u{1b}[1;31m", "\u{1b}[0m")
    } else {
        ("", "")
    };
    // continued lines stand under the first, so that the three parts stay apart
    let message = printable(&error.message).replace('\n', "\n       ");
    let mut text = format!("{on}error:{off} {message}\n  code: {}\n", error.code);
    if let Some(hint) = &error.hint {
        text.push_str(&format!("  try: {}\n", printable(hint).replace('\n', "\n       ")));
    }
    if let Some(ms) = error.retry_after_ms {
        text.push_str(&format!("  again in: {ms} ms\n"));
    }
    text
}

/// Control characters but for line ends made harmless: a message may hold a name from outside.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_their_three_parts() {
        let error = ErrorBody::new(wire::Code::Busy, "full\u{1b}[2J\nreally")
            .hint("windlass jobs ls")
            .retry_after_ms(50);
        assert_eq!(
            error_text(&error, false),
            "error: full\u{fffd}[2J\n       really\n  code: busy\n  try: windlass jobs ls\n  again in: 50 ms\n"
        );
        assert!(error_text(&error, true).starts_with("\u{1b}[1;31merror:\u{1b}[0m "));
    }

    #[test]
    fn progress_is_shown_where_someone_looks() {
        let base = Output {
            json: false,
            quiet: false,
            progress: ProgressStyle::Auto,
            stderr_is_terminal: true,
            colour: false,
        };
        assert_eq!(base.progress_style(), ProgressStyle::Bar);
        assert_eq!(
            Output {
                stderr_is_terminal: false,
                ..base
            }
            .progress_style(),
            ProgressStyle::Plain
        );
        assert_eq!(Output { json: true, ..base }.progress_style(), ProgressStyle::None);
        assert_eq!(
            Output {
                json: true,
                progress: ProgressStyle::Json,
                ..base
            }
            .progress_style(),
            ProgressStyle::Json
        );
        assert_eq!(
            Output {
                quiet: true,
                progress: ProgressStyle::Bar,
                ..base
            }
            .progress_style(),
            ProgressStyle::None
        );
    }
}
