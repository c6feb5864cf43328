//! How far a job is, on standard error: a bar, plain lines, or JSON lines.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};
use tokio::time::Instant;
use wire::job::{Job, Progress};

use super::args::ProgressStyle;
use super::output::Output;
use super::show;
use super::table::one_line;
use super::units::{amount, rate, seconds};

/// Time between two plain lines of the same phase.
const PLAIN_EVERY: Duration = Duration::from_secs(3);

/// Shows a job's progress until it is dropped.
pub struct Display {
    output: Output,
    style: ProgressStyle,
    bar: Option<ProgressBar>,
    last: Option<Progress>,
    printed_at: Option<Instant>,
}

impl Display {
    /// Shows nothing before the first [`Display::update`].
    pub fn new(output: Output) -> Self {
        Self {
            output,
            style: output.progress_style(),
            bar: None,
            last: None,
            printed_at: None,
        }
    }
    /// Takes a change of the job.
    pub fn update(&mut self, job: &Job) {
        match self.style {
            ProgressStyle::Json => {
                let line = serde_json::to_string(job).unwrap_or_default();
                self.output.stderr(&(line + "\n"));
            }
            ProgressStyle::Bar => self.update_bar(&job.progress),
            ProgressStyle::Plain | ProgressStyle::Auto => self.update_plain(&job.progress),
            ProgressStyle::None => {}
        }
    }
    fn is_new_phase(&self, progress: &Progress) -> bool {
        self.last.as_ref().is_none_or(|last| last.phase != progress.phase)
    }
    fn update_plain(&mut self, progress: &Progress) {
        if progress.phase.is_empty() || self.last.as_ref() == Some(progress) {
            return;
        }
        let due = self.printed_at.is_none_or(|at| at.elapsed() >= PLAIN_EVERY);
        if due || self.is_new_phase(progress) {
            self.output.stderr(&(show::progress(progress) + "\n"));
            self.printed_at = Some(Instant::now());
        }
        self.last = Some(progress.clone());
    }
    fn update_bar(&mut self, progress: &Progress) {
        if progress.phase.is_empty() {
            return;
        }
        if self.is_new_phase(progress) {
            self.close_bar();
            self.bar = Some(new_bar(self.output, progress));
        }
        if let Some(bar) = &self.bar {
            bar.set_length(progress.total.max(progress.done).max(1));
            bar.set_position(progress.done);
            bar.set_message(bar_message(progress));
        }
        self.last = Some(progress.clone());
    }
    /// A phase that is over leaves its bar as it stood.
    fn close_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.close_bar();
    }
}

fn new_bar(output: Output, progress: &Progress) -> ProgressBar {
    let target = if output.stderr_is_terminal {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::stderr_with_hz(1)
    };
    let bar = ProgressBar::with_draw_target(Some(progress.total), target);
    let known = "{prefix:10} [{bar:30}] {msg}";
    let unknown = "{prefix:10} {spinner} {msg}";
    let template = if progress.total > 0 { known } else { unknown };
    let style = BarStyle::with_template(template).unwrap_or_else(|_| BarStyle::default_bar());
    bar.set_style(style.progress_chars("=> ").tick_chars("-\\|/ "));
    bar.set_prefix(one_line(&progress.phase));
    bar
}

fn bar_message(p: &Progress) -> String {
    let mut text = amount(p.done, &p.unit);
    if p.total > 0 {
        text.push_str(&format!(" of {}", amount(p.total, &p.unit)));
    }
    if p.rate_per_s > 0.0 {
        text.push_str(&format!("  {}", rate(p.rate_per_s, &p.unit)));
    }
    if let Some(eta) = p.eta_s.filter(|_| p.done < p.total) {
        text.push_str(&format!("  {} left", seconds(eta)));
    }
    text
}
