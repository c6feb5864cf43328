//! The commented reference, made from the table of keys.

use std::fmt::Write as _;

use crate::key::{Key, KeyType, Preset, sections};
use crate::value::Value;

const HEAD: &str = "\
# windlass.toml: every key there is, commented out, with its default.
#
# Made from the table of keys (crate windlass-config); a test keeps it so.
#
# Where: --config FILE, else $WINDLASS_CONFIG, else /etc/windlass/windlass.toml for root and
# $XDG_CONFIG_HOME/windlass/windlass.toml (~/.config/windlass/windlass.toml) for others. windlass runs without one.
#
# What wins: defaults < this file < environment < flags. The variable of a key is WINDLASS_ and its path in capitals, with
# two underscores for each dot: WINDLASS_STATE_DIR, WINDLASS_SNAPSHOT__THREADS, WINDLASS_REPO__CHUNKER__MODE. An empty
# variable counts as absent. WINDLASS_REPO is the short name of WINDLASS_REPO__URL, WINDLASS_NATS of WINDLASS_NATS__SERVERS.
#
# Secrets never stand here: they come from the environment, or from files that a key names.
#
# SIGHUP makes a running daemon read all of this again: it takes up the keys that say so below, names in its log each other
# key that changed and needs a restart, and goes on as before when something is wrong.
#
# `windlass check-config FILE` says what is wrong in a file, with its line. `windlass config show --origin` says where
# each value comes from.
";

/// The text of `config/windlass.toml`.
pub fn reference() -> String {
    let mut text = String::from(HEAD);
    for section in sections() {
        let _ = write!(text, "\n{}", comment(section.about));
        if !section.name.is_empty() {
            let _ = writeln!(text, "[{}]", section.name);
        }
        for key in section.keys {
            let _ = write!(text, "\n{}{}", comment(&about(key)), line(key));
        }
    }
    text
}

fn about(key: &Key) -> String {
    let wanted = match key.kind {
        KeyType::Integer { min, max } => format!(" From {min} to {max}."),
        _ => String::new(),
    };
    let derived = match key.preset {
        Preset::Derived(how) => format!(" Default: {how}."),
        _ => String::new(),
    };
    let taken_up = match crate::is_taken_up(key.path) {
        true => " SIGHUP takes it up.",
        false => "",
    };
    format!("{}{wanted}{derived}{taken_up}", key.about)
}

/// A key with its default, commented out; derived defaults stand as they are for root on a host called `web-1`.
fn line(key: &Key) -> String {
    let value = match key.preset {
        Preset::Text(text) => Value::Text(text.into()),
        Preset::Integer(number) => Value::Integer(number),
        Preset::Derived(_) => Value::Text(
            match key.path {
                "host_id" => "web-1",
                "state_dir" => "/var/lib/windlass",
                "bus.mode" => "embedded",
                "repo.url" => "file:///var/lib/windlass/repo",
                "gateway.socket" => "/var/lib/windlass/windlass.sock",
                "gateway.token_file" => "/var/lib/windlass/gateway.token",
                "gateway.tokens_file" => "/var/lib/windlass/gateway.tokens",
                "repo.cache_dir" => "/var/cache/windlass",
                other => unreachable!("no example of {other}"),
            }
            .into(),
        ),
    };
    format!("#{} = {value}\n", key.leaf())
}

/// Comment lines of at most 118 characters.
fn comment(text: &str) -> String {
    const WIDTH_CHARS_MAX: usize = 118;
    let mut lines = vec![String::from("#")];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is a first line");
        if last.chars().count() + 1 + word.chars().count() > WIDTH_CHARS_MAX {
            lines.push(format!("# {word}"));
        } else {
            last.push(' ');
            last.push_str(word);
        }
    }
    lines.iter().fold(String::new(), |text, line| text + line + "\n")
}
